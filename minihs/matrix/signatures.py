# SPDX-License-Identifier: Apache-2.0
"""Ed25519 signatures on JSON and on events (spec: appendices, "Signing JSON"; server-server-api, "Signing
Events"). Which key belongs to whom, and until when it counts, is the keyring's business."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nacl.exceptions
import nacl.signing

from minihs.matrix import canonical, unpadded
from minihs.matrix.canonical import BadJson, JsonObject
from minihs.matrix.hashes import signed_bytes
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import RoomVersion

if TYPE_CHECKING:
    from minihs.matrix.event import Event

_KEY_VERSION = re.compile(r"[A-Za-z0-9_]+")
_SEED_BYTES = 32

POLICY_KEY_ID = "ed25519:policy_server"
"""Under it stands the signature by a room's policy server. That key is in the room's state, and never one
that a server publishes (server-server-api, "Policy Servers")."""


class SignatureError(Exception):
    """A signature that is missing, malformed or wrong. `args[0]` is safe to show to anybody."""


class SigningKey:
    """A private key and its id. Its `repr` does not give it away."""

    __slots__ = ("_key", "_seed", "key_id")

    def __init__(self, seed: bytes, version: str) -> None:
        if len(seed) != _SEED_BYTES:
            raise ValueError("the seed of a signing key is 32 bytes")
        if not _KEY_VERSION.fullmatch(version):
            raise ValueError("the version of a signing key consists of letters, digits and underscores")
        self._seed = seed
        self._key = nacl.signing.SigningKey(seed)
        self.key_id = f"ed25519:{version}"
        """Algorithm and version, as in `signatures` and in the published keys."""

    @classmethod
    def generate(cls, seed: bytes, version: str) -> SigningKey:
        """A new key from 32 bytes of the caller's randomness."""
        return cls(seed, version)

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        """Read a key file: the line `ed25519 <version> <seed in base64>`, the form Synapse writes. ValueError
        if the first line with something on it is not such a line."""
        fields = next((line.split() for line in text.splitlines() if line.strip()), [])
        if len(fields) != 3 or fields[0] != "ed25519":
            raise ValueError("a signing key file holds a line 'ed25519 <version> <base64>'")
        return cls(unpadded.decode(fields[2]), fields[1])

    def to_text(self) -> str:
        """The key as `from_text` reads it, for a file that nobody else can read."""
        return f"ed25519 {self.key_id.removeprefix('ed25519:')} {unpadded.encode(self._seed)}\n"

    @property
    def verify_key(self) -> bytes:
        return bytes(self._key.verify_key)

    @property
    def verify_key_base64(self) -> str:
        """The public half, as published in the server's key document."""
        return unpadded.encode(self.verify_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature

    def __repr__(self) -> str:
        return f"<SigningKey {self.key_id}>"


def sign_json(value: JsonObject, server_name: str, key: SigningKey) -> JsonObject:
    """A copy of `value` with our signature added to those it has. BadJson if it has no canonical form."""
    return _with_signature(value, server_name, key, _signed_bytes_of_json(value))


def verify_json(value: JsonObject, server_name: str, key_id: str, public_key: bytes) -> None:
    """SignatureError unless `value` is signed by that server with that key."""
    signature = signature_of(value, server_name, key_id)
    try:
        message = _signed_bytes_of_json(value)
    except BadJson as error:
        raise SignatureError("what is signed has no canonical JSON form") from error
    verify_bytes(message, signature, public_key)


def sign_event(pdu: JsonObject, version: RoomVersion, server_name: str, key: SigningKey) -> JsonObject:
    """A copy of `pdu`, which already holds its content hash, with our signature added."""
    return _with_signature(pdu, server_name, key, signed_bytes(pdu, version))


def verify_event_signature(event: Event, server_name: str, key_id: str, public_key: bytes) -> None:
    """SignatureError unless that server has signed the event with that key. Holds for an event and for its
    redacted form alike, since the redacted form is what is signed."""
    signature = signature_of(event.json, server_name, key_id)
    signed = signed_bytes(event.json, event.version) if event.signed is None else event.signed
    verify_bytes(signed, signature, public_key)


def servers_that_must_sign(event: Event) -> set[str]:
    """Whose signatures an event needs before it is looked at any further (server-server-api, "Validating
    hashes and signatures on received events")."""
    servers = set()
    # An invite that redeems a third-party invite may be sent by another server than its sender's.
    if not (event.membership == "invite" and "third_party_invite" in event.content):
        servers.add(event.origin)
    if event.version.event_id_server_signs:
        servers.add(domain_of(event.event_id))
    if event.version.restricted_join and event.type == "m.room.member":
        # rooms/v8 rule 4.2. Whatever the membership, though only joins have a use for the key.
        authoriser = event.content.get("join_authorised_via_users_server")
        if authoriser is not None:
            servers.add(domain_of(authoriser))
    return servers


def signature_of(value: JsonObject, server_name: str, key_id: str) -> bytes:
    """The decoded signature by that server and key. SignatureError if there is none."""
    signatures = value.get("signatures")
    of_server = signatures.get(server_name) if isinstance(signatures, dict) else None
    text = of_server.get(key_id) if isinstance(of_server, dict) else None
    if not isinstance(text, str):
        raise SignatureError(f"not signed by {server_name} with {key_id}")
    try:
        return unpadded.decode(text)
    except ValueError as error:
        raise SignatureError(f"the signature by {server_name} with {key_id} is not base64") from error


def verify_bytes(message: bytes, signature: bytes, public_key: bytes) -> None:
    """SignatureError unless the signature is right. The library lets other threads run meanwhile."""
    try:
        nacl.signing.VerifyKey(public_key).verify(message, signature)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise SignatureError("the signature is wrong") from error


def _signed_bytes_of_json(value: JsonObject) -> bytes:
    return canonical.encode({k: v for k, v in value.items() if k not in ("signatures", "unsigned")})


def _with_signature(value: JsonObject, server_name: str, key: SigningKey, message: bytes) -> JsonObject:
    signatures = dict(value.get("signatures", {}))
    signatures[server_name] = {
        **signatures.get(server_name, {}),
        key.key_id: unpadded.encode(key.sign(message)),
    }
    return {**value, "signatures": signatures}
