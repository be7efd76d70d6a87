# SPDX-License-Identifier: Apache-2.0
"""Our own keys, and the document that publishes them (spec: server-server-api, "Publishing Keys").

Keys that are no longer used stay in the document for ever, with the time of their retirement: events signed
with them are still passed around. They are kept in a file beside the key in use, one line each:

    ed25519:<version> <public key, base64> <retired, ms since 1970>
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from minihs.federation.x_matrix import is_key_id
from minihs.matrix import unpadded
from minihs.matrix.canonical import JsonObject
from minihs.matrix.signatures import SigningKey, sign_json
from minihs.runtime import Clock
from minihs.store.server_keys import NewKey, StoredKey

VALIDITY_MS = 2 * 24 * 3600 * 1000
"""How long others may rely on a document of ours. Short enough that a stolen key dies soon after it is
retired."""

OLD_KEYS_FILE = "old_signing_keys"


class OwnKeys:
    def __init__(
        self, server_name: str, key: SigningKey, clock: Clock, old: Mapping[str, NewKey] | None = None
    ) -> None:
        self.server_name = server_name
        self.key = key
        self._clock = clock
        self._old = {key_id: each for key_id, each in (old or {}).items() if key_id != key.key_id}

    def document(self) -> JsonObject:
        """What /_matrix/key/v2/server answers."""
        document: JsonObject = {
            "server_name": self.server_name,
            "valid_until_ts": self._clock.now_ms() + VALIDITY_MS,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key_base64}},
            "old_verify_keys": {
                key_id: {"key": unpadded.encode(each.public_key), "expired_ts": each.expired_ts}
                for key_id, each in self._old.items()
            },
        }
        return sign_json(document, self.server_name, self.key)

    def sign(self, document: JsonObject) -> JsonObject:
        """As a notary: the document with our signature added to it."""
        return sign_json(document, self.server_name, self.key)

    def stored(self) -> dict[str, StoredKey]:
        """Our keys in the form in which others' are kept; ours is always valid to ourselves."""
        now = self._clock.now_ms()
        found = {
            key_id: StoredKey(each.public_key, now, each.expired_ts, True, now)
            for key_id, each in self._old.items()
        }
        found[self.key.key_id] = StoredKey(self.key.verify_key, 2**62, None, True, now)
        return found


def read_old_keys(path: Path) -> dict[str, NewKey]:
    """The retired keys in a file; none if there is no file. Raises ValueError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, NewKey] = {}
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if len(fields) != 3 or not is_key_id(fields[0]) or not fields[2].isdigit():
            raise ValueError(f"{path}, line {number}: a line is 'ed25519:<version> <base64> <milliseconds>'")
        found[fields[0]] = NewKey(unpadded.decode(fields[1]), int(fields[2]))
    return found
