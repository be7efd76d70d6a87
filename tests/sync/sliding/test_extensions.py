# SPDX-License-Identifier: Apache-2.0
"""What comes beside rooms: messages to the device, encryption, account data, receipts, typing."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from minihs.store import one_time_keys, to_device
from minihs.store.one_time_keys import UploadedKey
from minihs.sync.sliding import extensions
from minihs.sync.sliding.request import MAX_TO_DEVICE
from tests.sync.sliding.kit import Connection, put, rooms
from tests.sync.world import ALICE, BOB, CAROL, Json, World

ENCRYPTED = [{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]


def asking(**wanted: Any) -> Json:
    """`extensions`: each name with its further fields."""
    return {"extensions": {name: {"enabled": True, **fields} for name, fields in wanted.items()}}


async def extended(client: Connection, **changes: Any) -> Json:
    answer: Json = (await client.next(**changes))["extensions"]
    return answer


async def send(world: World, device: str, *numbers: int) -> None:
    for number in numbers:
        await world.db.write(
            lambda tx, number=number: to_device.add(tx, ALICE, device, BOB, "m.test", {"n": number})
        )


def numbers(answer: Json) -> list[int]:
    return [event["content"]["n"] for event in answer["to_device"]["events"]]


async def test_only_what_was_asked_for_is_there(world: World) -> None:
    client = Connection(world, ALICE, **rooms())
    assert await extended(client) == {}
    off: Json = {name: {"enabled": False} for name in ("to_device", "e2ee", "typing", "unknown")}
    assert await extended(client, extensions={**off, "receipts": {}}) == {}


async def test_messages_to_the_device_come_until_since_says_they_arrived(world: World) -> None:
    client = Connection(world, ALICE, **asking(to_device={}))
    assert (await extended(client))["to_device"]["events"] == []
    await send(world, "PHONE", 1, 2)
    await send(world, "LAPTOP", 3)
    first = await extended(client)
    assert numbers(first) == [1, 2]
    assert numbers(await extended(client)) == [1, 2], "without since they did not arrive"
    since = first["to_device"]["next_batch"]
    await send(world, "PHONE", 4)
    assert numbers(await extended(client, **asking(to_device={"since": since}))) == [4]
    assert to_device.is_acknowledged(world.db.read, ALICE, "PHONE", int(since))
    new = Connection(world, ALICE, conn_id="new", **asking(to_device={}))
    assert numbers(await extended(new)) == [4], "what was acknowledged is gone"


async def test_more_messages_than_fit_come_one_answer_after_the_other(world: World) -> None:
    client = Connection(world, ALICE, **asking(to_device={"limit": 2}))
    await send(world, "PHONE", 1, 2, 3)
    first = await extended(client)
    assert numbers(first) == [1, 2]
    second = await extended(
        client, **asking(to_device={"limit": 2, "since": first["to_device"]["next_batch"]})
    )
    assert numbers(second) == [3]
    await send(world, "LAPTOP", *range(MAX_TO_DEVICE + 1))
    laptop = Connection(world, ALICE, device="LAPTOP", **asking(to_device={"limit": MAX_TO_DEVICE + 1}))
    assert numbers(await extended(laptop)) == list(range(MAX_TO_DEVICE))


async def test_since_from_the_future_deletes_nothing(world: World) -> None:
    await send(world, "PHONE", 1)
    client = Connection(world, ALICE, **asking(to_device={"since": "999999"}))
    assert numbers(await extended(client)) == [1]
    assert not to_device.is_acknowledged(world.db.read, ALICE, "PHONE", 999999)


async def test_a_message_to_the_device_wakes_a_poll_without_lists(
    world: World, autojump_clock: MockClock
) -> None:
    client = Connection(world, ALICE, timeout=30_000, **asking(to_device={}, e2ee={}))
    await extended(client)
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(3)
            await send(world, "PHONE", 1)

        nursery.start_soon(later)
        assert numbers(await extended(client)) == [1]
    assert trio.current_time() == pytest.approx(3)


async def test_counts_of_keys_are_always_there_and_wake(world: World, autojump_clock: MockClock) -> None:
    client = Connection(world, ALICE, timeout=30_000, **asking(e2ee={}))
    answer = await extended(client)
    assert answer["e2ee"]["device_one_time_keys_count"] == {"signed_curve25519": 0}
    assert answer["e2ee"]["device_unused_fallback_key_types"] == []
    assert "device_lists" not in answer["e2ee"]
    key = UploadedKey("signed_curve25519", "AAA", "{}", b"digest")
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(3)
            await world.db.write(
                lambda tx: (
                    one_time_keys.add(tx, ALICE, "PHONE", [key], now=0),
                    tx.wake(f"device:{ALICE}|PHONE"),
                )
            )

        nursery.start_soon(later)
        answer = await extended(client)
    assert answer["e2ee"]["device_one_time_keys_count"] == {"signed_curve25519": 1}


async def test_device_lists_are_those_of_sync_whatever_rooms_are_in_sight(world: World) -> None:
    room = await world.room(initial_state=ENCRYPTED)
    client = Connection(world, ALICE, **asking(e2ee={}))
    await extended(client)
    since = (await world.sync(ALICE))["next_batch"]
    for act, user in (("join", BOB), ("join", CAROL), ("leave", BOB)):
        await getattr(world.rooms, act)(user, room)
        answer, sync = await extended(client), await world.sync(ALICE, since)
        since = sync["next_batch"]
        assert answer["e2ee"]["device_lists"] == sync["device_lists"]
        assert answer["e2ee"]["device_lists"]["left" if act == "leave" else "changed"] == [user]
    assert "device_lists" not in (await extended(client))["e2ee"]


async def test_account_data_comes_when_it_changes(world: World) -> None:
    room = await world.room()
    await put(world, ALICE, "m.test", {"n": 1})
    await put(world, ALICE, "m.tag", {"tags": {"m.favourite": {}}}, room)
    client = Connection(world, ALICE, **rooms(), **asking(account_data={}))
    answer = (await extended(client))["account_data"]
    assert {"type": "m.test", "content": {"n": 1}} in answer["global"]
    assert "m.push_rules" in [event["type"] for event in answer["global"]]
    assert answer["rooms"] == {room: [{"type": "m.tag", "content": {"tags": {"m.favourite": {}}}}]}
    assert await extended(client) == {}
    await put(world, ALICE, "m.fully_read", {"event_id": "$x"}, room)
    answer = (await extended(client))["account_data"]
    assert answer == {
        "global": [],
        "rooms": {room: [{"type": "m.fully_read", "content": {"event_id": "$x"}}]},
    }
    await put(world, ALICE, "m.test", {"n": 2})
    answer = (await extended(client))["account_data"]
    assert answer == {"global": [{"type": "m.test", "content": {"n": 2}}], "rooms": {}}


async def test_an_extension_that_is_switched_on_late_starts_from_the_beginning(world: World) -> None:
    room = await world.room()
    await put(world, ALICE, "m.test", {"n": 1})
    await put(world, ALICE, "m.tag", {"tags": {}}, room)
    event = await world.say(ALICE, room, "hello")
    await world.receipts.set_markers(ALICE, room, {"m.read": event})
    client = Connection(world, ALICE, **rooms())
    assert await extended(client) == {}
    answer = await extended(client, **asking(account_data={}, receipts={}))
    assert {"type": "m.test", "content": {"n": 1}} in answer["account_data"]["global"]
    assert list(answer["account_data"]["rooms"]) == [room]
    assert list(answer["receipts"]["rooms"]) == [room]
    assert await extended(client) == {}


async def test_data_of_rooms_out_of_sight_waits(world: World) -> None:
    first, _second = await world.room(), await world.room()
    client = Connection(world, ALICE, **rooms(last=1), **asking(account_data={}, receipts={}))
    await client.next()
    await client.next(**rooms(last=0))
    await put(world, ALICE, "m.tag", {"tags": {}}, first)
    assert await extended(client) == {}
    answer = await extended(client, **rooms(last=1))
    assert answer["account_data"]["rooms"] == {first: [{"type": "m.tag", "content": {"tags": {}}}]}


async def test_receipts_first_those_in_sight_and_ones_own_then_all(world: World) -> None:
    room = await world.room()
    for user in (BOB, CAROL):
        await world.rooms.join(user, room)
    events = [await world.say(ALICE, room, str(number)) for number in range(3)]
    await world.receipts.set_markers(BOB, room, {"m.read": events[0]})
    await world.receipts.set_markers(CAROL, room, {"m.read": events[2]})
    await world.receipts.set_markers(ALICE, room, {"m.read.private": events[1]})
    client = Connection(world, ALICE, **rooms(limit=1), **asking(receipts={}))
    content = (await extended(client))["receipts"]["rooms"][room]["content"]
    assert content.keys() == {events[1], events[2]}
    assert content[events[2]]["m.read"].keys() == {CAROL}
    assert content[events[1]]["m.read.private"].keys() == {ALICE}
    await world.receipts.set_markers(BOB, room, {"m.read": events[1]})
    event = (await extended(client))["receipts"]["rooms"][room]
    assert event["type"] == "m.receipt"
    assert {user for users in event["content"].values() for user in users["m.read"]} == {BOB}
    await world.receipts.set_markers(BOB, room, {"m.read.private": events[2]})
    assert await extended(client) == {}, "that is not for others"
    await put(world, ALICE, "m.ignored_user_list", {"ignored_users": {BOB: {}}})
    await world.receipts.set_markers(BOB, room, {"m.read": events[2]})
    assert await extended(client) == {}


async def test_only_the_newest_receipts_are_looked_at_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await world.room()
    event = await world.say(ALICE, room, "hello")
    for user in (BOB, CAROL):
        await world.rooms.join(user, room)
        await world.receipts.set_markers(user, room, {"m.read": event})
    monkeypatch.setattr(extensions, "FIRST_RECEIPTS", 1)
    answer = await world.slide(ALICE, **rooms(), **asking(receipts={}))
    content = answer["extensions"]["receipts"]["rooms"][room]["content"]
    assert content[event]["m.read"].keys() == {CAROL}


async def test_of_receipts_at_one_event_the_unthreaded_one_counts(world: World) -> None:
    room = await world.room()
    event = await world.say(ALICE, room, "hello")
    await world.receipts.set_markers(ALICE, room, {"m.read": event})
    await world.receipts.set_markers(ALICE, room, {"m.read": event}, "main")
    answer = await world.slide(ALICE, **rooms(), **asking(receipts={}))
    content = answer["extensions"]["receipts"]["rooms"][room]["content"]
    assert "thread_id" not in content[event]["m.read"][ALICE]


async def test_typing_is_told_as_it_changes(world: World, autojump_clock: MockClock) -> None:
    room, quiet = await world.room(), await world.room()
    await world.rooms.join(BOB, room)
    client = Connection(world, ALICE, timeout=60_000, **rooms(), **asking(typing={}))
    await world.say(ALICE, quiet, "nobody types here")
    world.typing.set_typing(BOB, room, typing=True, timeout_ms=20_000)
    shown = {"type": "m.typing", "content": {"user_ids": [BOB]}}
    assert await extended(client) == {"typing": {"rooms": {room: shown}}}
    over = {"type": "m.typing", "content": {"user_ids": []}}
    assert await extended(client) == {"typing": {"rooms": {room: over}}}
    assert trio.current_time() == pytest.approx(20, abs=0.1)
    await put(world, ALICE, "m.ignored_user_list", {"ignored_users": {BOB: {}}})
    world.typing.set_typing(BOB, room, typing=True, timeout_ms=None)
    assert (await extended(client))["typing"]["rooms"] == {room: over}


async def test_extensions_keep_to_their_scope(world: World) -> None:
    listed, subscribed = await world.room(name="a"), await world.room(name="b")
    for room in (listed, subscribed):
        await put(world, ALICE, "m.tag", {"tags": {}}, room)
    body = rooms(last=0)
    body["room_subscriptions"] = {listed: {"timeline_limit": 1}}
    body["lists"]["none"] = {**body["lists"]["all"], "ranges": []}
    listed, subscribed = subscribed, listed  # the newer one is in the list
    both = {listed, subscribed}

    async def told(**scope: Any) -> set[str]:
        answer = await world.slide(ALICE, **body, **asking(account_data=scope))
        return set(answer["extensions"]["account_data"]["rooms"])

    assert await told() == both
    assert await told(rooms=[]) == {listed}
    assert await told(lists=[]) == {subscribed}
    assert await told(lists=["none"]) == {subscribed}
    assert await told(lists=["all"], rooms=[]) == {listed}
    assert await told(lists=["*"], rooms=["*"]) == both
    assert await told(lists=[], rooms=["*"]) == {subscribed}
    assert await told(lists=[], rooms=[listed]) == {listed}
    assert await told(lists=[], rooms=["!unknown:here.test"]) == set()
