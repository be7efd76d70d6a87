# SPDX-License-Identifier: Apache-2.0
"""Events for the tests of this folder."""

from __future__ import annotations

from typing import Any

from minihs.matrix.canonical import BadJson, JsonObject
from minihs.matrix.event import Event, build_event
from minihs.matrix.hashes import with_content_hash
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.matrix.signatures import SigningKey

KEY = SigningKey.generate(b"k" * 32, "a_1")
SERVER = "hs.example"
ALICE = f"@alice:{SERVER}"
ALL_VERSIONS = list(ROOM_VERSIONS.values())


def some_id(version: RoomVersion, n: int = 0) -> str:
    return f"$e{n}:{SERVER}" if version.event_format == 1 else "$" + str(n).rjust(43, "x")


def reference(version: RoomVersion, n: int = 0) -> Any:
    event_id = some_id(version, n)
    return [event_id, {"sha256": "x" * 43}] if version.event_format == 1 else event_id


def room_id_of(version: RoomVersion) -> str:
    return "!" + "r" * 43 if version.room_id_is_create_hash else f"!room:{SERVER}"


def pdu_of(version: RoomVersion, **changes: Any) -> JsonObject:
    """A good message with its content hash. A change to `...` removes the field."""
    pdu: JsonObject = {
        "type": "m.room.message",
        "sender": ALICE,
        "room_id": room_id_of(version),
        "content": {"body": "hello"},
        "depth": 5,
        "origin_server_ts": 1_700_000_000_000,
        "prev_events": [reference(version, 1)],
        "auth_events": [reference(version, 2)],
        "signatures": {SERVER: {"ed25519:a_1": "c2ln"}},
    }
    if version.event_format == 1:
        pdu["event_id"] = f"$event:{SERVER}"
    changed = {key: value for key, value in {**pdu, **changes}.items() if value is not ...}
    try:
        hashed = with_content_hash(changed)
    except BadJson:
        hashed = {**changed, "hashes": {"sha256": "x" * 43}}
    if "hashes" in changes:
        hashed.pop("hashes")
        hashed |= {key: value for key, value in changes.items() if key == "hashes" and value is not ...}
    return hashed


def event_of(version: RoomVersion, **changes: Any) -> Event:
    return Event.from_wire(pdu_of(version, **changes), version)


def built(version: RoomVersion, **changes: Any) -> Event:
    arguments: dict[str, Any] = {
        "room_id": room_id_of(version),
        "type": "m.room.message",
        "sender": ALICE,
        "content": {"body": "hello"},
        "depth": 5,
        "prev_events": [some_id(version, 1)],
        "auth_events": [some_id(version, 2)],
        "origin_server_ts": 1_700_000_000_000,
        "server_name": SERVER,
        "key": KEY,
        "prev_hashes": {some_id(version, n): "x" * 43 for n in range(30)},
        "random_id": "random",
    }
    return build_event(version=version, **{**arguments, **changes})
