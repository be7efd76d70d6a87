# SPDX-License-Identifier: Apache-2.0
"""Key documents (spec: server-server-api, "Publishing Keys"): reading others', pure, with all checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minihs.federation.x_matrix import is_key_id
from minihs.matrix import canonical, unpadded
from minihs.matrix.canonical import JsonObject
from minihs.matrix.signatures import SignatureError, verify_json
from minihs.store.server_keys import NewKey

MAX_VALIDITY_MS = 7 * 24 * 3600 * 1000
"""No key is believed for longer than this after its document was fetched, whatever that says (the spec's
MUST): else a thief could publish a stolen key as good for ever."""

MAX_KEYS = 100
"""Keys taken from one document, old and new."""

KEY_BYTES = 32


class BadKeyDocument(SignatureError):
    """Not a key document of that server. The text says why."""


@dataclass(frozen=True, slots=True)
class KeyDocument:
    server: str
    keys: dict[str, NewKey]
    valid_until_ts: int
    """As it says, not capped."""
    json: JsonObject

    @property
    def bytes(self) -> bytes:
        return canonical.encode(self.json)

    def capped(self, fetched_ts: int) -> int:
        """Until when the keys in use are valid."""
        return min(self.valid_until_ts, fetched_ts + MAX_VALIDITY_MS)


def parse(document: Any, server: str) -> KeyDocument:
    """Check a document that is said to be of `server`: names, types, and a signature by one of its own keys.

    Keys that are malformed or of another algorithm are left out. Raises BadKeyDocument.
    """
    if not isinstance(document, dict):
        raise BadKeyDocument("the key document is not an object")
    if document.get("server_name") != server:
        raise BadKeyDocument("the key document is for another server")
    until = document.get("valid_until_ts")
    if type(until) is not int or not 0 <= until < 2**62:
        raise BadKeyDocument("valid_until_ts is not a point in time")
    current = _keys(document.get("verify_keys"), old=False)
    if not _is_signed_by_one_of(document, server, current):
        raise BadKeyDocument("the key document is not signed with any of the keys in it")
    old = _keys(document.get("old_verify_keys", {}), old=True)
    return KeyDocument(server, {**old, **current}, until, document)


def _keys(section: Any, *, old: bool) -> dict[str, NewKey]:
    if not isinstance(section, dict):
        raise BadKeyDocument("the keys are not an object")
    found: dict[str, NewKey] = {}
    for key_id, entry in section.items():
        if len(found) >= MAX_KEYS:
            break
        public = _public_key(entry)
        expired = entry.get("expired_ts") if old and isinstance(entry, dict) else None
        if not is_key_id(key_id) or public is None:
            continue
        if old and (type(expired) is not int or not 0 <= expired < 2**62):
            continue
        found[key_id] = NewKey(public, expired)
    return found


def _public_key(entry: Any) -> bytes | None:
    text = entry.get("key") if isinstance(entry, dict) else None
    if not isinstance(text, str) or len(text) > 64:
        return None
    try:
        public = unpadded.decode(text)
    except ValueError:
        return None
    return public if len(public) == KEY_BYTES else None


def _is_signed_by_one_of(document: JsonObject, server: str, keys: dict[str, NewKey]) -> bool:
    for key_id, key in keys.items():
        try:
            verify_json(document, server, key_id, key.public_key)
        except SignatureError:
            continue
        return True
    return False
