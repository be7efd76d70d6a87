# SPDX-License-Identifier: Apache-2.0
"""What follows what we have gets its place by the commit that holds the answer; all else by the inbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.rooms import at_once, transactions
from minihs.rooms.batch import Batch
from minihs.rooms.entry import Entry
from minihs.rooms.turns import Turns
from minihs.store import inbox
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.inbox import Pdu
from tests.rooms.forge import inbox_of, rows_of
from tests.rooms.hostile_paths import VIC, Scene, scenes
from tests.rooms.world import timeline_of

type JsonObject = dict[str, Any]


class Watch:
    """What the victim writes from now on."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits = 0
        self.staged: list[str] = []
        stage = inbox.stage_pdus

        def noted(tx: Tx, pdus: Sequence[Pdu], *args: Any, **options: Any) -> dict[str, int]:
            self.staged += [pdu.event_id for pdu in pdus if pdu.event_id not in self.staged]
            return stage(tx, pdus, *args, **options)

        monkeypatch.setattr(transactions.inbox, "stage_pdus", noted)
        scene.victim.parts.db.on_every_commit(self._count)

    def _count(self) -> None:
        self.commits += 1


def chain(scene: Scene, length: int) -> tuple[list[JsonObject], list[str]]:
    pdus: list[JsonObject] = []
    ids: list[str] = []
    for _ in range(length):
        pdu, event_id = scene.good(prev=ids[-1:] or None)
        pdus.append(pdu)
        ids.append(event_id)
    return pdus, ids


async def receive(scene: Scene, pdus: Sequence[JsonObject], txn: str = "t", edus: Sequence[Any] = ()) -> Any:
    """Just the answer: nothing is waited for after it."""
    return await scene.victim.transactions.receive("e.test", txn, {"pdus": list(pdus), "edus": list(edus)})


@pytest.mark.parametrize("version", ["1", "6", "12"])
async def test_it_takes_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    async with scenes(tmp_path, version) as scene:
        pdus, ids = chain(scene, 50)
        watch = Watch(scene, monkeypatch)
        answer = await receive(scene, pdus)
        assert answer == {"pdus": {event_id: {} for event_id in ids}}
        assert (watch.commits, watch.staged) == (1, [])
        assert timeline_of(scene.victim, scene.room_id)[-50:] == ids
        assert set(scene.victim.parts.head(scene.room_id).tips) == {ids[-1]}
        # The answer is remembered, and who gets it again has nothing done again.
        assert await receive(scene, [], "t") == answer
        assert await receive(scene, pdus, "another") == answer
        await scene.world.rest()
        assert timeline_of(scene.victim, scene.room_id)[-50:] == ids


async def test_each_event_has_the_verdict_that_it_would_have_by_the_inbox(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        state = scene.forger.seal(scene.forger.draft("m.room.name", "@eve:e.test", {"name": "mine"}, ""))
        good, good_id = scene.good()
        answer = await receive(scene, [state, good])
        state_id = scene.forger.id_of(state)
        assert answer == {"pdus": {state_id: {}, good_id: {}}}
        assert rows_of(scene.victim)[state_id] == Outcome.REJECTED
        assert rows_of(scene.victim)[good_id] == Outcome.ACCEPTED


async def test_what_lacks_something_waits_and_the_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, "12") as scene:
        (parent, child, grandchild), (parent_id, child_id, grandchild_id) = chain(scene, 3)
        good, good_id = scene.good()
        scene.answer_honestly({parent_id: parent})
        watch = Watch(scene, monkeypatch)
        answer = await receive(scene, [child, good, grandchild])
        assert answer == {"pdus": {child_id: {}, good_id: {}, grandchild_id: {}}}
        assert watch.commits == 1
        assert watch.staged == [child_id, grandchild_id]
        assert inbox_of(scene.victim).keys() == {child_id, grandchild_id}
        assert rows_of(scene.victim)[good_id] == Outcome.ACCEPTED
        scene.answers["get_missing_events"] = [parent]
        await scene.world.wait(3600)
        assert inbox_of(scene.victim) == {}
        assert rows_of(scene.victim)[grandchild_id] == Outcome.ACCEPTED


async def test_who_waited_for_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, "12") as scene:
        (parent, child), (parent_id, child_id) = chain(scene, 2)
        scene.answer_honestly({})
        await scene.world.send("e.test", "v.test", [child])
        assert inbox_of(scene.victim) == {child_id: 1}
        watch = Watch(scene, monkeypatch)
        await receive(scene, [parent])
        assert watch.staged == []
        await scene.world.rest()
        assert inbox_of(scene.victim) == {}
        assert timeline_of(scene.victim, scene.room_id)[-2:] == [parent_id, child_id]


async def test_no_answer_waits_for_a_busy_room(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        pdu, event_id = scene.good()
        free = trio.Event()
        scene.victim.parts.tasks.start(scene.room_id, free.wait)
        assert await receive(scene, [pdu]) == {"pdus": {event_id: {}}}
        assert inbox_of(scene.victim).keys() == {event_id}
        assert event_id not in rows_of(scene.victim)
        free.set()
        await scene.world.rest()
        assert rows_of(scene.victim)[event_id] == Outcome.ACCEPTED


async def test_nor_for_a_slow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "MAX_SECONDS", 0)
    async with scenes(tmp_path, "12") as scene:
        pdus, ids = chain(scene, 3)
        watch = Watch(scene, monkeypatch)
        assert (await receive(scene, pdus))["pdus"].keys() == set(ids)
        assert (watch.commits, watch.staged) == (1, ids[1:])
        await scene.world.rest()
        assert timeline_of(scene.victim, scene.room_id)[-3:] == ids


async def test_nor_for_another_server(tmp_path: Path) -> None:
    """An auth event has to be asked for, and who is asked says nothing."""
    async with scenes(tmp_path, "12") as scene:
        unknown = scene.forger.seal(
            scene.forger.draft("m.room.member", "@new:e.test", {"membership": "join"}, "@new:e.test")
        )
        unknown_id = scene.forger.id_of(unknown)
        auth = [*scene.forger.auth_events("m.x", VIC, None, {}), unknown_id]
        message = scene.forger.draft("m.room.message", "@new:e.test", {}, auth=auth)
        pdu = scene.forger.seal(message)

        asked, free = trio.Event(), trio.Event()

        async def slow(*_args: Any) -> Any:
            asked.set()
            await free.wait()
            return {}

        for verb in ("get_event_auth", "get_event"):
            scene.world.hooks["e.test", verb] = slow
        assert await receive(scene, [pdu]) == {"pdus": {scene.forger.id_of(pdu): {}}}
        assert inbox_of(scene.victim).keys() == {scene.forger.id_of(pdu)}
        await asked.wait()
        free.set()


async def test_events_of_two_rooms_go_by_the_inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, "12") as scene:
        pdu, event_id = scene.good()
        here, scene.forger.room_id = scene.room_id, scene.other_room
        other, other_id = scene.good()
        scene.forger.room_id = here
        watch = Watch(scene, monkeypatch)
        await scene.world.send("e.test", "v.test", [pdu, other])
        assert set(watch.staged) == {event_id, other_id}
        assert rows_of(scene.victim)[event_id] == rows_of(scene.victim)[other_id] == Outcome.ACCEPTED


async def test_one_that_fails_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.world.loud = True
        pdus, ids = chain(scene, 3)
        poison, poison_id = scene.good(prev=ids[1:2])
        accept = Batch.accept

        def crash(self: Batch, entry: Entry) -> None:
            if entry.event.event_id == poison_id:
                raise RuntimeError("poison")
            accept(self, entry)

        monkeypatch.setattr(Batch, "accept", crash)
        watch = Watch(scene, monkeypatch)
        answer = await receive(scene, [*pdus[:2], poison, pdus[2]])
        assert answer["pdus"].keys() == {*ids, poison_id}
        assert watch.staged == [*ids[:2], poison_id, ids[2]]
        await scene.world.rest()
        assert timeline_of(scene.victim, scene.room_id)[-3:] == ids
        assert inbox_of(scene.victim) == {poison_id: 1}


async def test_a_full_disk_takes_neither_the_events_nor_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, "12") as scene:
        pdus, ids = chain(scene, 2)
        remember = inbox.remember_answer

        def full(*_args: Any) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        monkeypatch.setattr(transactions.inbox, "remember_answer", full)
        with pytest.raises(sqlite3.OperationalError):
            await receive(scene, pdus)
        assert not rows_of(scene.victim).keys() & set(ids)
        assert inbox_of(scene.victim) == {}
        monkeypatch.setattr(transactions.inbox, "remember_answer", remember)
        await receive(scene, pdus)
        assert timeline_of(scene.victim, scene.room_id)[-2:] == ids


async def test_a_peer_that_hangs_up_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, "12") as scene:
        pdus, ids = chain(scene, 20)
        after_step = Turns.after_step
        with trio.CancelScope() as scope:

            async def hang_up(self: Turns, account: str, started: float, room_id: str | None = None) -> None:
                if room_id is not None:  # the events are being given their places
                    scope.cancel()
                await after_step(self, account, started, room_id)

            monkeypatch.setattr(Turns, "after_step", hang_up)
            await receive(scene, pdus)
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert timeline_of(scene.victim, scene.room_id)[-20:] == ids
        assert not scene.victim.parts.tasks.any_busy()
        again = await receive(scene, [])
        assert again == {"pdus": {event_id: {} for event_id in ids}}


async def test_who_is_less_loud_does_not_wait_for_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, "12") as scene:
        pdus, ids = chain(scene, 50)
        quiet = await scene.world.servers["h.test"].send("@alice:h.test", scene.room_id, "m.room.message", {})
        after_step = Turns.after_step
        placed: list[int] = []

        async def then_comes(self: Turns, account: str, started: float, room_id: str | None = None) -> None:
            await after_step(self, account, started, room_id)
            if room_id is not None and account == "e.test":
                placed.append(1)
                if len(placed) == 10:
                    await scene.world.deliver_between("h.test", "v.test")

        monkeypatch.setattr(Turns, "after_step", then_comes)
        watch = Watch(scene, monkeypatch)
        await receive(scene, pdus)
        assert watch.staged == [quiet, *ids[10:]]
        await scene.world.rest()
        rows = scene.victim.parts.db.read.execute(
            "SELECT event_id FROM events JOIN event_ids USING (event_nid) WHERE arrival > 0 ORDER BY arrival"
        ).fetchall()
        assert [row[0] for row in rows][-51:] == [*ids[:10], quiet, *ids[10:]]


async def test_edus_are_kept_by_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scenes(tmp_path, "12") as scene:
        taken: list[Any] = []
        free = trio.Event()

        async def take(_origin: str, content: JsonObject) -> None:
            await free.wait()
            taken.append(content)

        scene.world.durable["x.kept"] = take
        await scene.world.restart("v.test")
        pdus, ids = chain(scene, 1)
        watch = Watch(scene, monkeypatch)
        await receive(scene, pdus, edus=[{"edu_type": "x.kept", "content": {"n": 1}}])
        assert watch.commits == 1
        free.set()
        await scene.world.rest()
        assert taken == [{"n": 1}]
        assert timeline_of(scene.victim, scene.room_id)[-1:] == ids
