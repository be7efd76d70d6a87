# SPDX-License-Identifier: Apache-2.0
"""Keys as real clients make them: rightly signed."""

from __future__ import annotations

from typing import Any

from minihs.matrix import unpadded
from minihs.matrix.canonical import encode
from minihs.matrix.signatures import SigningKey

from .kit import Client

ALGORITHMS = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]


def signing_key(seed: int) -> SigningKey:
    return SigningKey.generate(bytes([seed]) * 32, "x")


def signed(value: dict[str, Any], user_id: str, name: str, key: SigningKey) -> dict[str, Any]:
    """With one more signature, under whatever key id."""
    bare = {field: value[field] for field in value if field not in ("signatures", "unsigned")}
    signatures = {user: dict(by) for user, by in value.get("signatures", {}).items()}
    signatures.setdefault(user_id, {})[name] = unpadded.encode(key.sign(encode(bare)))
    return {**value, "signatures": signatures}


def only_signature(value: dict[str, Any], user_id: str, name: str, key: SigningKey) -> dict[str, Any]:
    """With this signature and no other: as clients upload later signatures."""
    return signed({**value, "signatures": {}}, user_id, name, key)


def device_keys(client: Client, seed: int = 1) -> dict[str, Any]:
    key = signing_key(seed)
    keys = {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": ALGORITHMS,
        "keys": {
            f"curve25519:{client.device_id}": unpadded.encode(bytes([seed + 100]) * 32),
            f"ed25519:{client.device_id}": key.verify_key_base64,
        },
    }
    return signed(keys, client.user_id, f"ed25519:{client.device_id}", key)


def one_time_keys(client: Client, *numbers: int, seed: int = 1) -> dict[str, Any]:
    made = {}
    for number in numbers:
        key = {"key": unpadded.encode(number.to_bytes(32, "big"))}
        name = f"ed25519:{client.device_id}"
        made[f"signed_curve25519:AAAA{number}"] = signed(key, client.user_id, name, signing_key(seed))
    return made


class CrossSigning:
    """A user's three key pairs."""

    def __init__(self, user_id: str, seed: int = 10) -> None:
        self.user_id = user_id
        self.master, self.self_signing, self.user_signing = (signing_key(seed + i) for i in range(3))

    def key(self, usage: str) -> dict[str, Any]:
        pair: SigningKey = getattr(self, usage)
        public = pair.verify_key_base64
        key = {"user_id": self.user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
        if usage == "master":
            return key
        return signed(key, self.user_id, f"ed25519:{self.master.verify_key_base64}", self.master)

    def upload(self, *usages: str) -> dict[str, Any]:
        chosen = usages or ("master", "self_signing", "user_signing")
        return {f"{usage}_key": self.key(usage) for usage in chosen}
