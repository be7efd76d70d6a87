# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from tests.sync.relations_kit import (
    a_room_of,
    edit_of,
    ids_of,
    ignore,
    react,
    relation,
    reply,
    threads,
)
from tests.sync.world import ALICE, BOB, CAROL, DAVE, World

# --- what may not be sent


async def test_one_reacts_only_once_in_the_same_way(world: World) -> None:
    room = await a_room_of(world, BOB)
    event_id = await world.say(ALICE, room, "text")
    first = await react(world, ALICE, room, event_id)
    with pytest.raises(MatrixError) as refusal:
        await react(world, ALICE, room, event_id)
    assert (refusal.value.status, refusal.value.errcode) == (400, "M_DUPLICATE_ANNOTATION")
    await react(world, ALICE, room, event_id, "🎉")
    await react(world, BOB, room, event_id)
    await world.rooms.send(ALICE, room, "m.other", relation("m.annotation", event_id, key="👍"))
    await world.rooms.redact(ALICE, room, first, {}, None, None)
    await react(world, ALICE, room, event_id)


async def test_a_thread_begins_at_an_event_that_relates_to_none(world: World) -> None:
    room = await a_room_of(world)
    root = await world.say(ALICE, room, "root")
    said = await reply(world, ALICE, room, root)
    edit = await world.say(ALICE, room, "* better", **edit_of(root, "better"))
    for event_id in (said, edit):
        with pytest.raises(MatrixError) as refusal:
            await reply(world, ALICE, room, event_id)
        assert (refusal.value.status, refusal.value.errcode) == (400, "M_UNKNOWN")
    answer = {"m.relates_to": {"m.in_reply_to": {"event_id": root}}}
    plain_reply = await world.say(ALICE, room, "a plain reply", **answer)
    await reply(world, ALICE, room, plain_reply)


@pytest.mark.parametrize(
    "relates",
    [
        None,
        [],
        {"rel_type": "m.thread"},
        {"rel_type": 1, "event_id": "$a"},
        {"rel_type": "m.thread", "event_id": 1},
        {"rel_type": "m.thread", "event_id": "not an id"},
        {"rel_type": "", "event_id": "$a"},
        {"rel_type": "x" * 256, "event_id": "$a"},
    ],
)
async def test_a_malformed_relation_is_none(world: World, relates: Any) -> None:
    room = await a_room_of(world)
    await world.say(ALICE, room, "text", **{"m.relates_to": relates})
    assert world.db.read.execute("SELECT COUNT(*) FROM relations").fetchone()[0] == 0


# --- GET /threads


async def test_threads_are_listed_by_what_was_said_last(world: World) -> None:
    room = await a_room_of(world, BOB)
    first, second, third = [await world.say(ALICE, room, str(number)) for number in range(3)]
    for root in (first, second, third, first):
        await reply(world, BOB, room, root)
    answer = await threads(world, ALICE, room)
    assert ids_of(answer) == [first, third, second]
    assert "next_batch" not in answer
    assert answer["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"] == 2
    page = await threads(world, ALICE, room, limit=2)
    assert ids_of(page) == [first, third]
    rest = await threads(world, ALICE, room, limit=2, start=page["next_batch"])
    assert ids_of(rest) == [second]
    assert "next_batch" not in rest


async def test_threads_that_one_took_part_in(world: World) -> None:
    room = await a_room_of(world, BOB, CAROL)
    began = await world.say(CAROL, room, "carol's")
    joined = await world.say(ALICE, room, "with carol")
    without = await world.say(ALICE, room, "without carol")
    for root in (began, joined, without):
        await reply(world, BOB, room, root)
    await reply(world, CAROL, room, joined)
    assert ids_of(await threads(world, CAROL, room, participated=True)) == [joined, began]


async def test_an_edit_starts_no_thread(world: World) -> None:
    room = await a_room_of(world)
    await world.member(DAVE, room, "join")
    event_id = await world.say(ALICE, room, "text")
    reaction = await react(world, ALICE, room, event_id)
    await world.receive(DAVE, room, "m.room.message", {"body": "x", **relation("m.thread", reaction)})
    assert ids_of(await threads(world, ALICE, room)) == []


async def test_the_root_of_an_ignored_user_is_shown_redacted(world: World) -> None:
    room = await a_room_of(world, BOB, CAROL)
    root = await world.say(BOB, room, "root")
    await reply(world, CAROL, room, root)
    lonely = await world.say(CAROL, room, "only bob answers")
    await reply(world, BOB, room, lonely)
    await ignore(world, ALICE, BOB)
    answer = await threads(world, ALICE, room)
    assert ids_of(answer) == [root]
    assert answer["chunk"][0]["content"] == {}
    assert answer["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"] == 1


async def test_threads_are_for_members_and_take_their_own_tokens_only(world: World) -> None:
    room = await world.room(preset="private_chat")
    with pytest.raises(MatrixError) as refusal:
        await threads(world, CAROL, room)
    assert refusal.value.errcode == "M_FORBIDDEN"
    for token in ("nonsense", "s1_0"):
        with pytest.raises(MatrixError) as refusal:
            await threads(world, ALICE, room, start=token)
        assert refusal.value.errcode == "M_INVALID_PARAM"
