# SPDX-License-Identifier: Apache-2.0
"""The shapes of keys, checked: what clients upload and what other servers answer.

(client-server-api, "Key algorithms", "Device keys", "Cross-signing".) Keys go on to others as they
came, so a malformed one must not get in: it could stop what it is sent along with.
"""

from __future__ import annotations

import hashlib

from minihs.matrix.canonical import BadJson, JsonObject, check_strict, encode
from minihs.matrix.errors import bad_json, invalid_param, too_large
from minihs.matrix.fields import optional_object, required_text
from minihs.matrix.ids import fits
from minihs.matrix.unpadded import decode
from minihs.store.one_time_keys import UploadedKey

MAX_KEYS_BYTES = 16 * 1024
"""Of a device's or user's keys with their signatures."""

MAX_ONE_TIME_KEY_BYTES = 2048
MAX_ALGORITHMS = 50
ED25519_BYTES = 32


def checked_device_keys(keys: JsonObject, user_id: str, device_id: str) -> JsonObject:
    """DeviceKeys as this device may upload them; `unsigned` is dropped."""
    keys = {name: value for name, value in keys.items() if name != "unsigned"}
    check_size(keys, MAX_KEYS_BYTES, "device_keys")
    if required_text(keys, "user_id") != user_id or required_text(keys, "device_id") != device_id:
        raise invalid_param("device_keys are those of another user or device.")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or len(algorithms) > MAX_ALGORITHMS:
        raise bad_json("algorithms must be a list.")
    if not all(isinstance(algorithm, str) and fits(algorithm) for algorithm in algorithms):
        raise bad_json("algorithms must be strings.")
    named = keys.get("keys")
    if not isinstance(named, dict) or not named:
        raise bad_json("device_keys.keys must be an object with keys in it.")
    for name, key in named.items():
        algorithm, colon, owner = name.partition(":")
        if not algorithm or not colon or not isinstance(key, str) or not fits(name):
            raise bad_json("Each of device_keys.keys must be named <algorithm>:<device id> and be a string.")
        if owner != device_id:
            raise invalid_param("device_keys.keys hold a key of another device.")
    check_signatures(keys.get("signatures", {}))
    return keys


def checked_one_time_keys(body: JsonObject, name: str) -> list[UploadedKey]:
    keys = optional_object(body, name) or {}
    return [checked_one_time_key(key_name, key) for key_name, key in keys.items()]


def checked_one_time_key(name: str, key: object) -> UploadedKey:
    algorithm, colon, key_id = name.partition(":")
    if not algorithm or not colon or not key_id or not fits(name):
        raise invalid_param("One-time keys are named <algorithm>:<key id>.")
    if isinstance(key, dict):
        public = required_text(key, "key")
        check_signatures(key.get("signatures", {}))
    elif isinstance(key, str):
        public = key
    else:
        raise bad_json("A one-time key must be a string or an object.")
    text = check_size(key, MAX_ONE_TIME_KEY_BYTES, "A one-time key")
    return UploadedKey(algorithm, key_id, text.decode(), hashlib.sha256(public.encode()).digest())


def checked_cross_signing_key(key: object, user_id: str, usage: str) -> tuple[str, JsonObject]:
    """(public key, key) of a CrossSigningKey; `unsigned` is dropped."""
    if not isinstance(key, dict):
        raise bad_json(f"{usage}_key must be an object.")
    key = {name: value for name, value in key.items() if name != "unsigned"}
    check_size(key, MAX_KEYS_BYTES, f"{usage}_key")
    if required_text(key, "user_id") != user_id:
        raise invalid_param(f"{usage}_key is another user's.")
    usages = key.get("usage")
    if not isinstance(usages, list) or usage not in usages:
        raise invalid_param(f"{usage}_key does not have the usage {usage}.")
    named = key.get("keys")
    if not isinstance(named, dict) or len(named) != 1:
        raise bad_json(f"{usage}_key.keys must hold exactly one key.")
    ((name, public),) = named.items()
    if not isinstance(public, str) or name != f"ed25519:{public}":
        raise invalid_param(f"{usage}_key.keys must be named by the key itself: ed25519:<public key>.")
    ed25519_bytes(public)
    check_signatures(key.get("signatures", {}))
    return public, key


def ed25519_bytes(public: str) -> bytes:
    """The 32 bytes of a public key; M_INVALID_PARAM."""
    try:
        raw = decode(public)
    except ValueError as error:
        raise invalid_param("A public key is not base64.") from error
    if len(raw) != ED25519_BYTES:
        raise invalid_param("An Ed25519 public key has 32 bytes.")
    return raw


def check_signatures(signatures: object) -> None:
    """User id → key id → signature, all strings."""
    if not isinstance(signatures, dict):
        raise bad_json("signatures must be an object.")
    for by in signatures.values():
        if not isinstance(by, dict) or not all(isinstance(signature, str) for signature in by.values()):
            raise bad_json("signatures must map users to keys to strings.")


def check_size(value: object, limit: int, name: str) -> bytes:
    """The canonical JSON, which is what is signed; M_BAD_JSON for floats and integers that have none."""
    try:
        check_strict(value)
        text = encode(value)
    except BadJson as error:
        raise bad_json(f"{name} has no canonical JSON form.") from error
    if len(text) > limit:
        raise too_large(f"{name} has more than {limit} bytes.")
    return text
