# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from minihs.matrix.errors import MatrixError
from minihs.sync.receipts import check_event_id, check_receipt_type, check_thread_id
from minihs.sync.typing import MAX_TYPING
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World


def typing_in(answer: Json, room: str) -> list[str] | None:
    for event in answer["rooms"]["join"].get(room, {}).get("ephemeral", {}).get("events", []):
        if event["type"] == "m.typing":
            users: list[str] = event["content"]["user_ids"]
            return users
    return None


def receipts_in(answer: Json, room: str) -> list[Json]:
    events = answer["rooms"]["join"].get(room, {}).get("ephemeral", {}).get("events", [])
    return [event["content"] for event in events if event["type"] == "m.receipt"]


async def test_typing_is_shown_until_it_stops(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    answer = await world.sync(ALICE)
    assert typing_in(answer, room) is None
    world.typing.set_typing(BOB, room, typing=True, timeout_ms=None)
    answer = await world.sync(ALICE, answer["next_batch"])
    assert typing_in(answer, room) == [BOB]
    answer = await world.sync(ALICE, answer["next_batch"])
    assert typing_in(answer, room) is None
    world.typing.set_typing(BOB, room, typing=False, timeout_ms=None)
    assert typing_in(await world.sync(ALICE, answer["next_batch"]), room) == []


async def test_a_waiting_poll_sees_typing_begin_and_time_out(world: World, autojump_clock: MockClock) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    first = await world.sync(ALICE)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def type_soon() -> None:
            await trio.sleep(2)
            world.typing.set_typing(BOB, room, typing=True, timeout_ms=10_000)

        second = await world.sync(ALICE, first["next_batch"], timeout_ms=30_000)
    assert typing_in(second, room) == [BOB]
    started = trio.current_time()
    third = await world.sync(ALICE, second["next_batch"], timeout_ms=30_000)
    assert typing_in(third, room) == []
    assert 9 < trio.current_time() - started < 12


async def test_a_restart_ends_what_a_client_still_shows_as_typing(world: World) -> None:
    room = await world.room()
    world.typing.set_typing(ALICE, room, typing=True, timeout_ms=None)
    first = await world.sync(ALICE)
    assert typing_in(first, room) == [ALICE]
    world.typing = type(world.typing)(
        world.db.read, world.runtime, world.notifier, "here.test", edus=world.edus, acls=world.acls
    )
    world.typing.serial += 1000
    world.typing.first_serial += 1000
    world.syncer = world.new_syncer()
    await world.say(ALICE, room, "still there")
    assert typing_in(await world.sync(ALICE, first["next_batch"]), room) == []


async def test_typing_is_told_to_the_other_servers_of_the_room(world: World) -> None:
    room = await world.room()
    world.typing.set_typing(ALICE, room, typing=True, timeout_ms=None)
    assert world.edus.sent == []
    await world.member(DAVE, room, "join")
    world.typing.set_typing(ALICE, room, typing=False, timeout_ms=None)
    content = {"room_id": room, "user_id": ALICE, "typing": False}
    assert world.edus.sent == [(["there.test"], "m.typing", content)]


@pytest.mark.parametrize("user", [BOB, DAVE])
async def test_only_members_type(world: World, user: str) -> None:
    room = await world.room()
    with pytest.raises(MatrixError) as refusal:
        world.typing.set_typing(user, room, typing=True, timeout_ms=None)
    assert refusal.value.status == 403


async def test_typing_from_another_server_is_checked(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    good: dict[str, Any] = {"room_id": room, "user_id": DAVE, "typing": True}
    for origin, content in [
        ("evil.test", good),
        ("there.test", {**good, "user_id": "@erin:there.test"}),
        ("there.test", {**good, "user_id": ALICE}),
        ("there.test", {**good, "typing": 1}),
        ("there.test", {**good, "room_id": "!other:here.test"}),
        ("there.test", {**good, "room_id": ["x"]}),
        ("there.test", {**good, "user_id": None}),
        ("there.test", ["rubbish"]),
    ]:
        world.typing.receive_typing(origin, content)
        assert world.typing.users(room) == []

    class Closed:
        def allows(self, room_id: str, host: str) -> bool:
            return False

    world.typing._acls = Closed()
    world.typing.receive_typing("there.test", good)
    assert world.typing.users(room) == []
    world.typing._acls = world.acls
    world.typing.receive_typing("there.test", good)
    assert world.typing.users(room) == [DAVE]


async def test_only_so_many_typing_users_are_kept(world: World) -> None:
    room = await world.room()
    for number in range(MAX_TYPING + 1):
        world.typing._set(room, f"@user{number}:there.test", typing=True, duration_ms=1000)
    assert len(world.typing.users(room)) == MAX_TYPING


async def test_a_receipt_reaches_the_others_and_a_private_one_does_not(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    event_id = await world.say(ALICE, room, "read me")
    mine, theirs = await world.sync(BOB), await world.sync(ALICE)
    await world.receipts.set_markers(BOB, room, {"m.read.private": event_id})
    assert receipts_in(await world.sync(ALICE, theirs["next_batch"]), room) == []
    own = receipts_in(await world.sync(BOB, mine["next_batch"]), room)
    assert own[0][event_id]["m.read.private"].keys() == {BOB}
    await world.receipts.set_markers(BOB, room, {"m.read": event_id})
    seen = receipts_in(await world.sync(ALICE, theirs["next_batch"]), room)
    assert seen[0][event_id].keys() == {"m.read"}
    assert receipts_in(await world.sync(CAROL), room) == []


async def test_receipts_in_two_threads_at_one_event_are_both_told(world: World) -> None:
    room = await world.room()
    event_id = await world.say(ALICE, room, "root")
    await world.receipts.set_markers(ALICE, room, {"m.read": event_id}, "main")
    await world.receipts.set_markers(ALICE, room, {"m.read": event_id}, event_id)
    events = receipts_in(await world.sync(ALICE), room)
    threads = {content[event_id]["m.read"][ALICE]["thread_id"] for content in events}
    assert threads == {"main", event_id}


async def test_receipts_never_move_back(world: World) -> None:
    room = await world.room()
    one, two = await world.say(ALICE, room, "one"), await world.say(ALICE, room, "two")
    await world.receipts.set_markers(ALICE, room, {"m.read": two, "m.fully_read": two})
    first = await world.sync(ALICE)
    await world.receipts.set_markers(ALICE, room, {"m.read": one, "m.fully_read": one})
    again = await world.sync(ALICE, first["next_batch"])
    assert again["rooms"]["join"] == {}


async def test_the_read_marker_comes_as_account_data(world: World) -> None:
    room = await world.room()
    event_id = await world.say(ALICE, room, "one")
    first = await world.sync(ALICE)
    await world.receipts.set_markers(ALICE, room, {"m.fully_read": event_id})
    answer = await world.sync(ALICE, first["next_batch"])
    assert answer["rooms"]["join"][room]["account_data"]["events"] == [
        {"type": "m.fully_read", "content": {"event_id": event_id}}
    ]


async def test_public_receipts_go_to_other_servers_and_private_ones_stay(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    event_id = await world.say(ALICE, room, "one")
    await world.receipts.set_markers(ALICE, room, {"m.read.private": event_id})
    assert world.edus.sent == []
    await world.receipts.set_markers(ALICE, room, {"m.read": event_id}, "main")
    [(hosts, kind, content)] = world.edus.sent
    assert (hosts, kind) == (["there.test"], "m.receipt")
    entry = content[room]["m.read"][ALICE]
    assert entry["event_ids"] == [event_id]
    assert entry["data"]["thread_id"] == "main"


async def test_receipts_from_another_server_are_checked(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    event_id = await world.say(ALICE, room, "one")
    good: Json = {"data": {"ts": 5}, "event_ids": [event_id]}
    since = (await world.sync(ALICE))["next_batch"]
    for origin, content in [
        ("evil.test", {room: {"m.read": {DAVE: good}}}),
        ("there.test", {room: {"m.read": {"@erin:there.test": good}}}),
        ("there.test", {room: {"m.read": {ALICE: good}}}),
        ("there.test", {room: {"m.read.private": {DAVE: good}}}),
        ("there.test", {room: {"m.read": {DAVE: {**good, "event_ids": []}}}}),
        ("there.test", {room: {"m.read": {DAVE: {**good, "event_ids": [1]}}}}),
        ("there.test", {room: {"m.read": {DAVE: {**good, "data": []}}}}),
        ("there.test", {room: {"m.read": {DAVE: {**good, "data": {"thread_id": 1}}}}}),
        ("there.test", {room: {"m.read": [DAVE]}}),
        ("there.test", {room: ["m.read"]}),
        ("there.test", {"!other:x": {"m.read": {DAVE: good}}}),
        ("there.test", "rubbish"),
    ]:
        await world.receipts.receive_receipts(origin, content)
        assert receipts_in(await world.sync(ALICE, since), room) == []
    await world.receipts.receive_receipts("there.test", {room: {"m.read": {DAVE: good}}})
    assert receipts_in(await world.sync(ALICE, since), room) == [{event_id: {"m.read": {DAVE: {"ts": 5}}}}]


def test_what_is_wrong_about_a_receipt_is_refused() -> None:
    for call in (
        lambda: check_receipt_type("m.other"),
        lambda: check_thread_id("", "m.read"),
        lambda: check_thread_id(5, "m.read"),
        lambda: check_thread_id("main", "m.fully_read"),
        lambda: check_thread_id("not an event", "m.read"),
        lambda: check_event_id("nope", "eventId"),
        lambda: check_event_id(None, "m.read"),
    ):
        with pytest.raises(MatrixError) as refusal:
            call()
        assert refusal.value.status == 400
    assert check_thread_id(None, "m.fully_read") == ""
    assert check_thread_id("main", "m.read") == "main"
