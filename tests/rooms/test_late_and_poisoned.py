# SPDX-License-Identifier: Apache-2.0
"""PDUs that can't be dealt with now: their parents come late, or they make our own code fail."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.event import Event
from minihs.rooms import batch as batch_module
from minihs.rooms import receive
from minihs.store import new_events, rooms
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent
from minihs.testing.events import RoomFactory
from tests.rooms.forge import inbox_of, rows_of
from tests.rooms.hostile_paths import EVE, VIC, Scene, scenes
from tests.rooms.world import timeline_of, worlds

type JsonObject = dict[str, Any]


def tips(scene: Scene) -> set[str]:
    return set(scene.victim.parts.head(scene.room_id).tips)


# -- parents that come late ------------------------------------------------------------------------


async def test_a_deferred_pdu_goes_on_as_soon_as_its_parents_come(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.answer_honestly({})
        parent, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        grandchild, grandchild_id = scene.good(prev=[child_id])
        await scene.world.send("e.test", "v.test", [grandchild])
        await scene.world.send("e.test", "v.test", [child])
        assert inbox_of(scene.victim) == {child_id: 1, grandchild_id: 1}
        await scene.world.send("e.test", "v.test", [parent])
        assert inbox_of(scene.victim) == {}
        assert timeline_of(scene.victim, scene.room_id)[-3:] == [parent_id, child_id, grandchild_id]
        assert tips(scene) == {grandchild_id}


async def test_a_deferred_pdu_is_tried_again_after_a_while_and_a_restart(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.answer_honestly({})
        parent, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        await scene.world.send("e.test", "v.test", [child])
        for attempts in range(2, 5):
            await scene.world.wait(100 * attempts)
            assert inbox_of(scene.victim) == {child_id: attempts}
        await scene.world.restart("v.test")
        scene.answers["get_missing_events"] = [parent]
        await scene.world.wait(3600)
        assert inbox_of(scene.victim) == {}
        assert timeline_of(scene.victim, scene.room_id)[-2:] == [parent_id, child_id]


async def test_a_clock_that_is_set_back_does_not_hold_up_deferred_pdus(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.answer_honestly({})
        parent, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        await scene.world.send("e.test", "v.test", [child])
        assert inbox_of(scene.victim) == {child_id: 1}
        scene.world.clock.ms -= 400 * 24 * 3600_000
        scene.answers["get_missing_events"] = [parent]
        await scene.world.wait(60)
        assert inbox_of(scene.victim) == {}


async def test_a_pdu_whose_parents_never_come_is_given_up_some_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "MAX_DEFERRALS", 3)
    async with scenes(tmp_path, "12") as scene:
        scene.answer_honestly({})
        child, child_id = scene.good(prev=["$nowhere"])
        await scene.world.send("e.test", "v.test", [child])
        for _ in range(3):
            assert child_id in inbox_of(scene.victim)
            await scene.world.wait(24 * 3600)
        assert inbox_of(scene.victim) == {}
        assert child_id not in rows_of(scene.victim)


async def test_a_parent_that_comes_after_its_child_is_no_extremity(tmp_path: Path) -> None:
    """The child was placed at a gap; its parent fills that, and nothing is to be built on it."""
    async with scenes(tmp_path, "12") as scene:
        parent, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        scene.answer_honestly({parent_id: parent})
        await scene.world.send("e.test", "v.test", [child])
        assert child_id in tips(scene)
        await scene.world.send("e.test", "v.test", [parent])
        assert rows_of(scene.victim)[parent_id] == Outcome.ACCEPTED
        assert tips(scene) == {child_id}
        nid = scene.victim.parts.head(scene.room_id).room_nid
        assert parent_id not in [
            row[0] for row in rooms.backward_extremities(scene.victim.parts.db.read, nid)
        ]


async def test_a_gap_that_cannot_be_told_about_truly_is_not_jumped(tmp_path: Path) -> None:
    """A server that tells the state before an event but keeps back the event is not believed."""
    async with scenes(tmp_path, "12") as scene:
        _, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        scene.answer_honestly({})
        await scene.world.send("e.test", "v.test", [child])
        assert child_id not in rows_of(scene.victim)
        assert inbox_of(scene.victim) == {child_id: 1}


async def test_what_another_room_says_of_an_event_to_come_does_not_keep_it_from_being_newest(
    tmp_path: Path,
) -> None:
    async with scenes(tmp_path, "12") as scene:
        pdu, event_id = scene.good()
        other = RoomFactory("12", EVE)
        json = other.send(EVE, "m.room.message", {"body": "mine"}).json | {"prev_events": [event_id]}
        claim = NewEvent(
            Event.from_store(json, other.version, "$claim"), Outcome.ACCEPTED, 1, topo=1, arrival=1
        )

        def write(tx: Tx) -> None:
            assert other.room_id is not None
            new_events.insert(tx, rooms.intern(tx, other.room_id, "12"), claim)

        await scene.victim.parts.db.write(write)
        await scene.world.send("e.test", "v.test", [pdu])
        assert tips(scene) == {event_id}


# -- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["resolve", "write"])
async def test_a_pdu_that_crashes_its_step_is_set_aside_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.world.loud = True
        pdus: list[JsonObject] = []
        ids: list[str] = []
        for _ in range(5):
            pdu, event_id = scene.good(prev=ids[-1:] or None)
            pdus.append(pdu)
            ids.append(event_id)
        poison, poison_id = scene.good(prev=[ids[2]])
        name = "accept" if where == "resolve" else "_write_rest"
        honest = getattr(batch_module.Batch, name)

        def crash(self: Any, *args: Any) -> Any:
            entry = args[0] if where == "resolve" else args[1]
            if entry.event.event_id == poison_id:
                raise RuntimeError("poison")
            return honest(self, *args)

        monkeypatch.setattr(batch_module.Batch, name, crash)
        await scene.world.send("e.test", "v.test", [*pdus[:3], poison, *pdus[3:]])
        assert set(ids) <= rows_of(scene.victim).keys()
        assert inbox_of(scene.victim) == {poison_id: 1}
        assert tips(scene) == {ids[-1]}
        for attempts in range(2, 1 + receive.MAX_CRASHES):
            await scene.world.wait(60)
            assert inbox_of(scene.victim).get(poison_id, attempts) == attempts
        await scene.world.wait(60)
        assert inbox_of(scene.victim) == {}
        kept = scene.victim.parts.db.read.execute("SELECT event_id FROM inbox WHERE kind = 2").fetchall()
        assert kept == [(poison_id,)]
        # It is not staged again, and what is built upon it finds a way round it.
        await scene.world.send("e.test", "v.test", [poison])
        assert inbox_of(scene.victim) == {}
        scene.answer_honestly({poison_id: poison})
        scene.answers["get_missing_events"] = [poison]
        after, after_id = scene.good(prev=[ids[-1], poison_id])
        await scene.world.send("e.test", "v.test", [after])
        if where == "resolve":
            assert rows_of(scene.victim)[after_id] == Outcome.ACCEPTED
        mine = await scene.victim.send(VIC, scene.room_id, "m.room.message", {})
        assert tips(scene) == {mine}


async def test_a_full_disk_is_no_pdus_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.world.loud = True
        honest = batch_module.Batch._write_rest

        def full(*args: Any) -> int:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        monkeypatch.setattr(batch_module.Batch, "_write_rest", full)
        pdu, event_id = scene.good()
        await scene.world.send("e.test", "v.test", [pdu])
        for _ in range(10):
            await scene.world.wait(60)
        assert inbox_of(scene.victim) == {event_id: 0}
        monkeypatch.setattr(batch_module.Batch, "_write_rest", honest)
        await scene.world.wait(60)
        assert inbox_of(scene.victim) == {}
        assert rows_of(scene.victim)[event_id] == Outcome.ACCEPTED


async def test_edus_wait_for_a_disk_that_is_full(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with worlds(tmp_path) as world:
        world.loud = True
        full, taken = True, []

        async def handle(origin: str, content: JsonObject) -> None:
            if full:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            taken.append(content["n"])

        world.durable["x.kept"] = handle
        await world.start("v.test")
        edus = [{"edu_type": "x.kept", "content": {"n": n}} for n in range(2)]
        await world.servers["v.test"].transactions.receive("e.test", "t", {"edus": edus})
        await trio.sleep(300)
        full = False
        await trio.sleep(300)
        assert taken == [0, 1]
