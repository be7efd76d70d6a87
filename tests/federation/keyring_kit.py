# SPDX-License-Identifier: Apache-2.0
"""A keyring, keys and signed events."""

from __future__ import annotations

from minihs.federation.keyring import Keyring
from minihs.federation.own_keys import OwnKeys
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event, build_event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SigningKey
from tests.federation.kit import Caller

QUERY = "/_matrix/key/v2/query"


def keyring_of(us: Caller, *notaries: str) -> Keyring:
    return Keyring(OwnKeys(us.name, us.key, us.runtime.clock), us.db, us.runtime, us.client, notaries)


def key_of(number: int) -> SigningKey:
    return SigningKey.generate(bytes([number]) * 32, f"k{number}")


def make_event(
    server: str, key: SigningKey, ts: int, version: str = "11", content: JsonObject | None = None
) -> Event:
    return build_event(
        version=ROOM_VERSIONS[version],
        room_id="!" + "r" * 43 if version == "12" else "!room:" + server,
        type="m.room.message",
        sender="@user:" + server,
        content=content or {"body": "x"},
        depth=5,
        prev_events=["$" + "a" * 43] if version != "1" else ["$a:" + server],
        auth_events=[],
        origin_server_ts=ts,
        server_name=server,
        key=key,
        prev_hashes={"$a:" + server: "A" * 43},
        random_id="abc",
    )
