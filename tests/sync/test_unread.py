# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from minihs.matrix import push_rules as rules
from minihs.store import push_rules
from minihs.sync import unread
from tests.sync.world import ALICE, BOB, CAROL, Json, World

THREADED: Json = {"room": {"timeline": {"unread_thread_notifications": True}}}


def counts(answer: Json, room: str) -> tuple[int, int]:
    found = answer["rooms"]["join"][room]["unread_notifications"]
    return found["notification_count"], found["highlight_count"]


async def two_in_a_room(world: World) -> str:
    room = await world.room()
    await world.rooms.join(BOB, room)
    return room


async def test_messages_of_others_are_counted_until_they_are_read(world: World) -> None:
    room = await two_in_a_room(world)
    assert counts(await world.sync(BOB), room) == (0, 0)
    for number in range(3):
        last = await world.say(ALICE, room, str(number))
    answer = await world.sync(BOB)
    assert counts(answer, room) == (3, 0)
    await world.say(ALICE, room, "one more")
    assert counts(await world.sync(BOB, answer["next_batch"]), room) == (4, 0)
    await world.receipts.set_markers(BOB, room, {"m.read.private": last})
    answer = await world.sync(BOB, answer["next_batch"])
    assert counts(answer, room) == (1, 0)


@pytest.mark.parametrize("timeline", [{"not_types": ["m.room.message"]}, {"limit": 2}])
async def test_what_an_answer_does_not_show_counts_too(world: World, timeline: Json) -> None:
    room = await two_in_a_room(world)
    since = (await world.sync(BOB))["next_batch"]
    for number in range(4):
        await world.say(ALICE, room, str(number))
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "to be told"}, state_key="")
    answer = await world.sync(BOB, since, filter={"room": {"timeline": timeline}})
    assert counts(answer, room) == (4, 0)


async def test_what_was_redacted_before_it_was_told_does_not_count(world: World) -> None:
    room = await two_in_a_room(world)
    since = (await world.sync(BOB))["next_batch"]
    said = await world.say(ALICE, room, "oh")
    await world.say(ALICE, room, "well")
    await world.rooms.redact(ALICE, room, said, {}, None, None)
    assert counts(await world.sync(BOB, since), room) == (1, 0)


async def test_what_came_while_the_room_was_not_to_be_told_counts(world: World) -> None:
    room = await two_in_a_room(world)
    since = (await world.sync(BOB))["next_batch"]
    for number in range(3):
        await world.say(ALICE, room, str(number))
    since = (await world.sync(BOB, since, filter={"room": {"not_rooms": [room]}}))["next_batch"]
    await world.say(ALICE, room, "one more")
    assert counts(await world.sync(BOB, since), room) == (4, 0)


async def test_a_long_answer_counts_each_message_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "CHUNKS", (2, 8))
    room = await two_in_a_room(world)
    since = (await world.sync(BOB))["next_batch"]
    for number in range(4):
        await world.say(ALICE, room, str(number))
    assert counts(await world.sync(BOB, since), room) == (4, 0)


async def test_ones_own_messages_do_not_count_and_mark_as_read(world: World) -> None:
    room = await two_in_a_room(world)
    await world.say(ALICE, room, "one")
    answer = await world.sync(BOB)
    assert counts(answer, room) == (1, 0)
    await world.say(BOB, room, "two")
    assert counts(await world.sync(BOB, answer["next_batch"]), room) == (0, 0)


async def test_what_rules_know_of_the_room_is_of_the_state_that_is_told(world: World) -> None:
    room = await two_in_a_room(world)
    since = (await world.sync(ALICE))["next_batch"]
    for power, highlights in ((None, 0), (50, 1), (49, 0)):
        if power is not None:
            levels = {"users": {ALICE: 100, BOB: power}}
            await world.rooms.send(ALICE, room, "m.room.power_levels", levels, state_key="")
        await world.say(BOB, room, "all of you", **{"m.mentions": {"room": True}})
        answer = await world.sync(ALICE, since)
        since = answer["next_batch"]
        assert counts(answer, room)[1] == highlights


async def test_a_mention_highlights(world: World) -> None:
    room = await two_in_a_room(world)
    await world.say(ALICE, room, "you", **{"m.mentions": {"user_ids": [BOB]}})
    await world.say(ALICE, room, "not you", **{"m.mentions": {"user_ids": [CAROL]}})
    assert counts(await world.sync(BOB), room) == (2, 1)


async def test_of_too_many_unread_the_newest_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "MAX_COUNTED", 3)
    room = await two_in_a_room(world)
    since = (await world.sync(BOB))["next_batch"]
    told = []
    for number in range(5):
        mentioned = BOB if number in (0, 4) else CAROL
        await world.say(ALICE, room, str(number), **{"m.mentions": {"user_ids": [mentioned]}})
        answer = await world.sync(BOB, since)
        since = answer["next_batch"]
        told.append(counts(answer, room))
    assert told == [(1, 1), (2, 1), (3, 1), (3, 0), (3, 1)]


async def test_room_mentions_need_the_power_for_it(world: World) -> None:
    room = await two_in_a_room(world)
    await world.say(ALICE, room, "all", **{"m.mentions": {"room": True}})
    assert counts(await world.sync(BOB), room) == (1, 1)
    assert counts(await world.sync(ALICE), room) == (0, 0)
    await world.say(BOB, room, "all", **{"m.mentions": {"room": True}})
    assert counts(await world.sync(ALICE), room) == (1, 0)


async def test_a_new_member_starts_with_nothing_unread(world: World) -> None:
    room = await world.room()
    await world.say(ALICE, room, "before bob")
    await world.rooms.join(BOB, room)
    assert counts(await world.sync(BOB), room) == (0, 0)


async def test_threads_are_counted_apart_when_asked_for(world: World) -> None:
    room = await two_in_a_room(world)
    root = await world.say(ALICE, room, "root")
    for _ in range(2):
        await world.say(ALICE, room, "in it", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    assert counts(await world.sync(BOB), room) == (3, 0)
    answer = await world.sync(BOB, filter=THREADED)
    assert counts(answer, room) == (1, 0)
    by_thread = answer["rooms"]["join"][room]["unread_thread_notifications"]
    assert by_thread == {root: {"notification_count": 2, "highlight_count": 0}}
    await world.receipts.set_markers(BOB, room, {"m.read": root}, "main")
    answer = await world.sync(BOB, filter=THREADED)
    assert counts(answer, room) == (0, 0)
    assert answer["rooms"]["join"][room]["unread_thread_notifications"] == by_thread


async def test_changed_push_rules_change_the_count(world: World) -> None:
    room = await two_in_a_room(world)
    await world.say(ALICE, room, "hello")
    assert counts(await world.sync(BOB), room) == (1, 0)
    muted = rules.put_rule({}, "room", room, {"actions": []}, before=None, after=None)
    await world.db.write(lambda tx: push_rules.put(tx, BOB, muted))
    assert counts(await world.sync(BOB), room) == (0, 0)


async def test_counts_kept_in_memory_are_those_of_a_fresh_start(world: World) -> None:
    room = await two_in_a_room(world)
    answer = await world.sync(BOB)
    for number in range(5):
        last = await world.say(ALICE, room, str(number))
        if number == 2:
            await world.receipts.set_markers(BOB, room, {"m.read": last}, "main")
        answer = await world.sync(BOB, answer["next_batch"])
    kept = counts(answer, room)
    world.syncer = world.new_syncer()
    assert counts(await world.sync(BOB), room) == kept == (2, 0)


async def test_what_relates_to_an_event_of_a_thread_is_counted_there(world: World) -> None:
    room = await two_in_a_room(world)
    root = await world.say(ALICE, room, "root")
    said = await world.say(
        ALICE, room, "in it", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    )
    await world.say(ALICE, room, "about it", **{"m.relates_to": {"rel_type": "m.other", "event_id": said}})
    await world.say(ALICE, room, "of the root", **{"m.relates_to": {"rel_type": "m.other", "event_id": root}})
    answer = await world.sync(BOB, filter=THREADED)
    assert counts(answer, room) == (2, 0)
    by_thread = answer["rooms"]["join"][room]["unread_thread_notifications"]
    assert by_thread == {root: {"notification_count": 2, "highlight_count": 0}}


async def test_a_message_that_is_redacted_no_longer_counts(world: World) -> None:
    room = await two_in_a_room(world)
    first = await world.say(ALICE, room, "one")
    await world.say(ALICE, room, "two")
    answer = await world.sync(BOB)
    assert counts(answer, room) == (2, 0)
    await world.rooms.redact(ALICE, room, first, {}, None, None)
    assert counts(await world.sync(BOB, answer["next_batch"]), room) == (1, 0)
