# SPDX-License-Identifier: Apache-2.0
"""What is about devices in /sync: messages to them, whose keys changed, one-time keys."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from minihs.store import device_lists, one_time_keys, to_device
from minihs.store.one_time_keys import UploadedKey
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


async def tell(world: World, user: str, device: str, number: int) -> None:
    await world.db.write(lambda tx: to_device.add(tx, user, device, BOB, "m.test", {"number": number}))


def numbers(answer: Json) -> list[int]:
    return [event["content"]["number"] for event in answer["to_device"]["events"]]


def waiting(world: World, user: str, device: str) -> int:
    return len(to_device.read(world.db.read, user, device, 0, 2**60, 1000))


async def test_messages_to_a_device_come_until_the_next_since_proves_them_received(world: World) -> None:
    start = (await world.sync(ALICE))["next_batch"]
    await tell(world, ALICE, "PHONE", 1)
    await tell(world, ALICE, "LAPTOP", 2)
    first = await world.sync(ALICE, start)
    again = await world.sync(ALICE, start)
    assert numbers(first) == numbers(again) == [1]
    assert waiting(world, ALICE, "PHONE") == 1
    assert numbers(await world.sync(ALICE, first["next_batch"])) == []
    assert waiting(world, ALICE, "PHONE") == 0
    assert waiting(world, ALICE, "LAPTOP") == 1


async def test_more_messages_than_one_answer_carries_come_in_order_and_none_is_lost(world: World) -> None:
    start = (await world.sync(ALICE))["next_batch"]
    room = await world.room(ALICE)
    for number in range(250):
        await tell(world, ALICE, "PHONE", number)
    await world.say(ALICE, room, "among them")
    got, since, rooms = [], start, []
    for _ in range(4):
        answer = await world.sync(ALICE, since)
        got += numbers(answer)
        rooms += list(answer["rooms"]["join"])
        since = answer["next_batch"]
    assert got == list(range(250))
    assert rooms == [room]
    assert waiting(world, ALICE, "PHONE") == 0


async def test_a_message_wakes_the_device_that_waits(world: World, autojump_clock: MockClock) -> None:
    start = (await world.sync(ALICE))["next_batch"]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def soon() -> None:
            await trio.sleep(1)
            await tell(world, ALICE, "LAPTOP", 0)
            await trio.sleep(2)
            await tell(world, ALICE, "PHONE", 7)

        started = trio.current_time()
        answer = await world.sync(ALICE, start, timeout_ms=30_000)
    assert numbers(answer) == [7]
    assert 2.5 < trio.current_time() - started < 4


async def test_changed_devices_of_who_shares_a_room_are_told(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    start = (await world.sync(ALICE))["next_batch"]
    for user in (BOB, CAROL):
        await world.db.write(lambda tx, user=user: device_lists.record_change(tx, user))
    answer = await world.sync(ALICE, start)
    assert answer["device_lists"] == {"changed": [BOB], "left": []}


async def test_who_comes_to_or_leaves_the_last_shared_encrypted_room_is_told(world: World) -> None:
    room = await world.room(initial_state=[ENCRYPTION])
    other = await world.room(initial_state=[ENCRYPTION])
    answer = await world.sync(ALICE)
    await world.rooms.join(BOB, room)
    await world.member(DAVE, other, "join")
    answer = await world.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"] == {"changed": [BOB, DAVE], "left": []}
    await world.rooms.join(BOB, other)
    answer = await world.sync(ALICE, answer["next_batch"])
    await world.rooms.leave(BOB, room)
    answer = await world.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"]["left"] == []
    await world.rooms.leave(BOB, other)
    answer = await world.sync(ALICE, answer["next_batch"])
    assert answer["device_lists"]["left"] == [BOB]


async def test_joining_and_leaving_an_encrypted_room_oneself(world: World) -> None:
    room = await world.room(initial_state=[ENCRYPTION])
    await world.member(DAVE, room, "join")
    answer = await world.sync(BOB)
    await world.rooms.join(BOB, room)
    answer = await world.sync(BOB, answer["next_batch"])
    assert answer["device_lists"]["changed"] == [ALICE, DAVE]
    await world.rooms.leave(BOB, room)
    answer = await world.sync(BOB, answer["next_batch"])
    assert answer["device_lists"] == {"changed": [], "left": [ALICE, DAVE]}


async def test_a_room_that_becomes_encrypted_names_all_its_members(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    answer = await world.sync(ALICE)
    await world.rooms.send(ALICE, room, "m.room.encryption", ENCRYPTION["content"], state_key="")  # type: ignore[arg-type]  # a dict
    assert (await world.sync(ALICE, answer["next_batch"]))["device_lists"]["changed"] == [BOB]


async def test_one_time_keys_are_counted_and_a_claim_ends_the_wait(
    world: World, autojump_clock: MockClock
) -> None:
    key = UploadedKey("signed_curve25519", "AAAA", '{"key": "x"}', b"digest")
    await world.db.write(lambda tx: one_time_keys.add(tx, ALICE, "PHONE", [key], now=0) and None)
    await world.db.write(lambda tx: one_time_keys.set_fallback(tx, ALICE, "PHONE", key))
    first = await world.sync(ALICE)
    assert first["device_one_time_keys_count"] == {"signed_curve25519": 1}
    assert first["device_unused_fallback_key_types"] == ["signed_curve25519"]
    assert (await world.sync(BOB))["device_one_time_keys_count"] == {"signed_curve25519": 0}
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def soon() -> None:
            await trio.sleep(3)
            await world.db.write(
                lambda tx: one_time_keys.claim(tx, ALICE, "PHONE", "signed_curve25519", now=1)
            )

        started = trio.current_time()
        answer = await world.sync(ALICE, first["next_batch"], timeout_ms=30_000)
    assert answer["device_one_time_keys_count"] == {"signed_curve25519": 0}
    assert 2 < trio.current_time() - started < 5
