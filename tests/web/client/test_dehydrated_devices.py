# SPDX-License-Identifier: Apache-2.0
"""Dehydrated devices (MSC3814)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from minihs.e2ee.dehydrated_devices import EVENTS_IN_BATCH, MAX_DATA_BYTES
from minihs.e2ee.device_keys import MAX_ONE_TIME_KEYS
from minihs.store import to_device

from .kit import Client, TestServer, refused

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
DEVICE = "xGSBcp4qPmG3rS+/AXZlYlGrWcjmAl3FBAqDkJ/hVHo"
EVENTS = f"{PATH}/{quote(DEVICE, safe='')}/events"
DATA = {"algorithm": "m.dehydration.v2", "device_pickle": "encrypted", "nonce": "n"}


def one_of(user: Client, device_id: str = DEVICE) -> dict[str, Any]:
    return {
        "device_id": device_id,
        "device_data": DATA,
        "initial_device_display_name": "Dehydrated device",
        "device_keys": {
            "user_id": user.user_id,
            "device_id": device_id,
            "dehydrated": True,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {f"curve25519:{device_id}": device_id, f"ed25519:{device_id}": "k"},
            "signatures": {},
        },
        "one_time_keys": {"signed_curve25519:AAAA": {"key": "one", "signatures": {}}},
        "fallback_keys": {"signed_curve25519:BBBB": {"key": "fallback", "fallback": True, "signatures": {}}},
    }


async def keys_of(asker: Client, user: Client) -> dict[str, Any]:
    answer = await asker.post("/keys/query", {"device_keys": {user.user_id: []}})
    found: dict[str, Any] = answer.json["device_keys"].get(user.user_id, {})
    return found


async def test_it_is_found_by_others_and_kept_for_a_later_device(server: TestServer) -> None:
    alice, bob = await server.user("alice"), await server.user("bob")
    assert refused(await alice.get(PATH), 404, "M_NOT_FOUND")
    before = server.pos()
    assert (await alice.put(PATH, one_of(alice))).json == {"device_id": DEVICE}
    assert server.pos() > before
    later = await server.login("alice")
    assert (await later.get(PATH)).json == {"device_id": DEVICE, "device_data": DATA}
    assert (await keys_of(bob, alice))[DEVICE]["dehydrated"] is True
    for key in ("one", "fallback", "fallback"):
        claim = {"one_time_keys": {alice.user_id: {DEVICE: "signed_curve25519"}}}
        claimed = (await bob.post("/keys/claim", claim)).json["one_time_keys"][alice.user_id][DEVICE]
        assert next(iter(claimed.values()))["key"] == key
    assert refused(await bob.get(PATH), 404, "M_NOT_FOUND")


async def test_its_messages_come_in_batches_and_stay(server: TestServer) -> None:
    alice, bob = await server.user("alice"), await server.user("bob")
    await alice.put(PATH, one_of(alice))
    assert (await alice.get(EVENTS)).json == {"events": []}
    messages = {alice.user_id: {"*": {"number": 0}}}
    await bob.put("/sendToDevice/m.room.encrypted/t", {"messages": messages})

    def add(tx: Any) -> None:
        for number in range(1, EVENTS_IN_BATCH + 1):
            to_device.add(tx, alice.user_id, DEVICE, bob.user_id, "m.room.encrypted", {"number": number})

    await server.db.write(add)
    for _ in range(2):  # whoever begins anew finds all of it again
        first = (await alice.get(EVENTS)).json
        assert first["events"][0] == {
            "sender": bob.user_id,
            "type": "m.room.encrypted",
            "content": {"number": 0},
        }
        assert len(first["events"]) == EVENTS_IN_BATCH
        last = (await alice.get(f"{EVENTS}?from={first['next_batch']}")).json
        assert [event["content"]["number"] for event in last["events"]] == [EVENTS_IN_BATCH]
        assert "next_batch" not in last

    # The older form goes on until nothing comes.
    numbers, token = [], None
    while (answer := (await alice.post(EVENTS, {"next_batch": token} if token else {})).json)["events"]:
        numbers += [event["content"]["number"] for event in answer["events"]]
        token = answer["next_batch"]
    assert numbers == list(range(EVENTS_IN_BATCH + 1))


async def test_only_the_owner_reads_the_messages_and_of_this_device(server: TestServer) -> None:
    alice, bob = await server.user("alice"), await server.user("bob")
    await alice.put(PATH, one_of(alice))
    assert refused(await bob.get(EVENTS), 403, "M_FORBIDDEN")
    assert refused(await alice.get(f"{PATH}/{alice.device_id}/events"), 403, "M_FORBIDDEN")
    for token in ("x", "-1", "9" * 17, "١"):
        assert refused(await alice.get(f"{EVENTS}?from={quote(token)}"), 400, "M_INVALID_PARAM")
    assert refused(await alice.post(EVENTS, {"next_batch": 7}), 400, "M_BAD_JSON")


async def test_a_new_one_takes_the_place_of_the_one_before(server: TestServer) -> None:
    alice, bob = await server.user("alice"), await server.user("bob")
    await alice.put(PATH, one_of(alice))
    await bob.put("/sendToDevice/m.x/t", {"messages": {alice.user_id: {DEVICE: {}}}})
    await alice.put(PATH, one_of(alice, "ANOTHER"))
    assert (await alice.get(PATH)).json["device_id"] == "ANOTHER"
    assert list(await keys_of(bob, alice)) == ["ANOTHER"]
    assert refused(await alice.get(EVENTS), 403, "M_FORBIDDEN")
    await alice.put(PATH, one_of(alice))
    assert (await alice.get(EVENTS)).json == {"events": []}


async def test_it_can_be_deleted(server: TestServer) -> None:
    alice, bob = await server.user("alice"), await server.user("bob")
    assert refused(await alice.delete(PATH), 404, "M_NOT_FOUND")
    await alice.put(PATH, one_of(alice))
    assert (await alice.delete(PATH)).json == {"device_id": DEVICE}
    assert await keys_of(bob, alice) == {}
    await alice.put(PATH, one_of(alice))
    path = f"/_matrix/client/v3/devices/{quote(DEVICE, safe='')}"
    assert (await alice.confirmed("DELETE", path, {})).status == 200
    assert refused(await alice.get(PATH), 404, "M_NOT_FOUND")


async def test_it_is_no_device_to_log_in_to_and_takes_no_other_devices_place(server: TestServer) -> None:
    alice = await server.user("alice")
    assert refused(await alice.put(PATH, one_of(alice, alice.device_id)), 403, "M_FORBIDDEN")
    assert (await alice.get("/account/whoami")).status == 200
    await alice.put(PATH, one_of(alice))
    body = {"type": "m.login.password", "user": "alice", "password": "correct horse battery staple"}
    assert refused(await server.ask("POST", "/login", {**body, "device_id": DEVICE}), 403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("change", "status", "errcode"),
    [
        ({"device_id": None}, 400, "M_MISSING_PARAM"),
        ({"device_id": ""}, 400, "M_INVALID_PARAM"),
        ({"device_id": "OTHER"}, 400, "M_INVALID_PARAM"),
        ({"device_data": None}, 400, "M_MISSING_PARAM"),
        ({"device_data": "x"}, 400, "M_BAD_JSON"),
        ({"device_data": {}}, 400, "M_MISSING_PARAM"),
        ({"device_data": {**DATA, "x": "x" * MAX_DATA_BYTES}}, 413, "M_TOO_LARGE"),
        ({"device_keys": None}, 400, "M_MISSING_PARAM"),
        ({"device_keys": {}}, 400, "M_MISSING_PARAM"),
        ({"one_time_keys": {"x": 7}}, 400, "M_INVALID_PARAM"),
        ({"one_time_keys": {f"a:{n}": "k" for n in range(MAX_ONE_TIME_KEYS + 1)}}, 400, "M_INVALID_PARAM"),
        ({"fallback_keys": {"a:1": "k", "a:2": "l"}}, 400, "M_INVALID_PARAM"),
        ({"initial_device_display_name": 7}, 400, "M_BAD_JSON"),
    ],
)
async def test_what_is_malformed_changes_nothing(
    server: TestServer, change: dict[str, Any], status: int, errcode: str
) -> None:
    alice = await server.user("alice")
    await alice.put(PATH, one_of(alice, "BEFORE"))
    assert refused(await alice.put(PATH, one_of(alice) | change), status, errcode)
    assert (await alice.get(PATH)).json["device_id"] == "BEFORE"
