# SPDX-License-Identifier: Apache-2.0
"""What `minihs explain` says of events, rooms and conflicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.cli.explain import event_text, room_text, state_text
from minihs.matrix.errors import MatrixError
from minihs.rooms.explain import explain_event, explain_room, explain_state
from minihs.rooms.service import Rooms
from tests.rooms.forge import Forger
from tests.rooms.world import World, state_of, worlds

ALICE, BOB = "@alice:a.test", "@bob:b.test"


async def shared(world: World, version: str = "11") -> str:
    a, b = world.servers["a.test"], world.servers["b.test"]
    room = await a.create(ALICE, {"preset": "public_chat", "room_version": version})
    await b.join(BOB, room, via=["a.test"])
    await world.deliver()
    return room


def explained(server: Rooms, event_id: str) -> Any:
    return explain_event(server.parts.db.read, event_id)


async def test_an_accepted_event_is_told_of_with_what_it_stands_on(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room = await shared(world)
        event_id = await a.send(ALICE, room, "m.room.topic", {"topic": "t"}, state_key="")
        answer = explained(a, event_id)
        assert answer["outcome"] == "accepted"
        assert answer["is_current_state"] is True
        assert answer["signed_by"] == ["a.test"]
        assert {each["type"] for each in answer["auth_events"]} == {
            "m.room.create",
            "m.room.power_levels",
            "m.room.member",
        }
        assert [(each["check"], each["allowed"]) for each in answer["checks"]] == [
            ("auth events", True),
            ("state before", True),
            ("current state", True),
        ]
        text = event_text(answer)
        assert f"{event_id}: accepted" in text
        assert "It is the current state." in text


async def test_a_refused_event_is_told_of_with_the_rule(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room = await shared(world)
        forger = Forger(world, "b.test", "a.test", room)
        bad = forger.seal(forger.draft("m.room.topic", BOB, {"topic": "mine"}, ""))
        answer = await world.send("b.test", "a.test", [bad])
        (event_id,) = answer["pdus"]
        found = explained(a, event_id)
        assert found["outcome"] == "rejected"
        assert "rule" in found["reason"]
        assert [check["allowed"] for check in found["checks"]] == [False, False, False]
        assert "refused: rule" in event_text(found)


async def test_a_soft_failed_event_is_told_of_with_the_state_that_it_fails_by(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room = await shared(world)
        forger = Forger(world, "b.test", "a.test", room)
        late = forger.seal(forger.draft("m.room.message", BOB, {"body": "late"}))
        await a.ban(ALICE, room, BOB)
        answer = await world.send("b.test", "a.test", [late])
        (event_id,) = answer["pdus"]
        found = explained(a, event_id)
        assert found["outcome"] == "soft-failed"
        assert [check["allowed"] for check in found["checks"]] == [True, True, False]


async def test_an_event_that_waits_is_told_of(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room = await shared(world)
        forger = Forger(world, "b.test", "a.test", room)
        world.separate("a.test")
        orphan = forger.seal(forger.draft("m.room.message", BOB, {"body": "?"}, prev=["$missing" + "x" * 36]))
        answer = await world.send("b.test", "a.test", [orphan])
        (event_id,) = answer["pdus"]
        found = explained(a, event_id)
        assert found["inbox"]["kind"] == "waiting"
        assert found["inbox"]["attempts"] == 1
        assert "In the inbox: waiting" in event_text(found)
        room_answer = explain_room(a.parts.db.read, room, world.clock.ms)
        assert room_answer["inbox"] == {"due": 0, "deferred": 1, "set_aside": 0}


async def test_a_room_is_told_of(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room = await shared(world)
        answer = explain_room(a.parts.db.read, room, world.clock.ms)
        assert answer["members"] == {"join": 2}
        assert answer["largest_servers"] == {"a.test": 1, "b.test": 1}
        assert answer["state_events"] == len(state_of(a, room))
        (tip,) = answer["forward_extremities"]
        assert tip["sender"] == BOB
        text = room_text(answer)
        assert "members: 2 join" in text
        assert "forward extremities (1)" in text
        await world.servers["b.test"].leave(BOB, room)
        left = explain_room(world.servers["b.test"].parts.db.read, room, 0)
        assert "this server is not in it" in room_text(left)


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_who_won_a_conflict_and_why_is_told(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room = await shared(world, version)
        assert explain_state(a.parts.db.read, room, "m.room.topic", "")["conflict"] is None
        levels = a.parts.graph.event(state_of(a, room)["m.room.power_levels", ""])
        assert levels is not None
        users = {**levels.content.get("users", {}), BOB: 50}
        await a.send(ALICE, room, "m.room.power_levels", {**levels.content, "users": users}, state_key="")
        await world.deliver()
        world.separate("a.test")
        one = await a.send(ALICE, room, "m.room.topic", {"topic": "one"}, state_key="")
        two = await b.send(BOB, room, "m.room.topic", {"topic": "two"}, state_key="")
        world.reunite()
        await world.deliver()
        now = explain_state(a.parts.db.read, room, "m.room.topic", "")
        assert now["conflict"]["between"] == "the forward extremities"
        await a.send(ALICE, room, "m.room.message", {"body": "ties them together"})
        answer = explain_state(a.parts.db.read, room, "m.room.topic", "")
        conflict = answer["conflict"]
        assert conflict["between"].startswith("the parents of $")
        assert {each["event_id"] for each in conflict["candidates"]} == {one, two}
        winner = state_of(a, room)["m.room.topic", ""]
        assert conflict["winner"] == winner == answer["current"]["event_id"]
        assert [each["event_id"] for each in conflict["candidates"] if each["wins"]] == [winner]
        if version != "1":
            assert conflict["candidates"][-1]["event_id"] == winner
        text = state_text(answer)
        assert f" * {winner}" in text
        assert "State resolution" in text


@pytest.mark.parametrize("version", ["11", "12"])
async def test_what_was_tried_and_refused_is_told_with_the_rule(tmp_path: Path, version: str) -> None:
    """Bob sets the topic while Alice takes his power away: on his server, which took it, the resolution tries
    it after her levels."""
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room = await shared(world, version)
        levels = a.parts.graph.event(state_of(a, room)["m.room.power_levels", ""])
        assert levels is not None
        users = levels.content.get("users", {})
        raised = {**levels.content, "users": {**users, BOB: 50}}
        await a.send(ALICE, room, "m.room.power_levels", raised, state_key="")
        await a.send(ALICE, room, "m.room.topic", {"topic": "before"}, state_key="")
        await world.deliver()
        before = state_of(a, room)["m.room.topic", ""]
        world.separate("a.test")
        await a.send(ALICE, room, "m.room.power_levels", {**levels.content, "users": users}, state_key="")
        lost = await b.send(BOB, room, "m.room.topic", {"topic": "lost"}, state_key="")
        world.reunite()
        await world.deliver()
        conflict = explain_state(b.parts.db.read, room, "m.room.topic", "")["conflict"]
        told = {each["event_id"]: each for each in conflict["candidates"]}
        assert (told[before]["refused"], told[before]["wins"]) == (None, True)
        assert "power" in told[lost]["refused"]
        assert not told[lost]["wins"]
        assert conflict["winner"] == before == state_of(b, room)["m.room.topic", ""]
        text = state_text(explain_state(b.parts.db.read, room, "m.room.topic", ""))
        assert told[lost]["refused"] in text


async def test_what_is_not_here_is_said_to_be_not_here(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        db = world.servers["a.test"].parts.db.read
        for ask in (
            lambda: explain_event(db, "$nothing"),
            lambda: explain_room(db, "!nowhere:a.test", 0),
            lambda: explain_state(db, "!nowhere:a.test", "m.room.name", ""),
        ):
            with pytest.raises(MatrixError) as refused:
                ask()
            assert refused.value.status == 404
