# SPDX-License-Identifier: Apache-2.0
"""Events that were stored before there were indexes of relations and words."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from minihs.runtime import Runtime
from minihs.store import ids, old_events
from minihs.store.database import Database, Tx
from minihs.store.migrations import shipped
from minihs.sync.search import Search
from tests.sync.relations_kit import a_room_of, children, ids_of, react, reply, summed
from tests.sync.test_search import found, search
from tests.sync.world import ALICE, BOB, World


async def forget_the_indexes(world: World, *history: str) -> None:
    """As a database is that comes from an older version; `history`: events that count as fetched later."""
    nids = ids.event_nids(world.db.read, history).values()

    def forget(tx: Tx) -> None:
        tx.execute("DELETE FROM relations")
        tx.execute("INSERT INTO search (search) VALUES ('delete-all')")
        for place, nid in enumerate(nids, 1):
            tx.execute("UPDATE events SET arrival = ? WHERE event_nid = ?", (-place, nid))
        tx.execute("UPDATE search_progress SET pos = 0")
        tx.execute("DELETE FROM old_events")
        [migration] = [each for each in shipped() if each.name == "old_events"]
        tx.execute(migration.sql[migration.sql.index("INSERT INTO") :])

    await world.db.write(forget)


async def test_they_are_put_in_after_the_start_in_steps(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_events, "WINDOW", 3)
    room = await a_room_of(world, BOB)
    root = await world.say(ALICE, room, "root of the matter")
    said = [await reply(world, BOB, room, root, f"leaf {number}") for number in range(10)]
    gone = await react(world, BOB, room, root)
    await world.rooms.redact(BOB, room, gone, {}, "PHONE", "t1")
    assert summed(world, ALICE, room, root)["m.thread"]["count"] == 10
    await forget_the_indexes(world, root)
    assert summed(world, ALICE, room, root) == {}
    assert ids_of(await children(world, ALICE, room, root)) == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Search(world.db, world.runtime, world.facts).run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert summed(world, ALICE, room, root)["m.thread"]["count"] == 10
    assert "m.annotation" not in summed(world, ALICE, room, root)
    assert ids_of(await children(world, ALICE, room, root)) == said[::-1]
    assert found(await search(world, ALICE, "matter")) == [root]
    assert found(await search(world, ALICE, "leaf", limit=50)) == said[::-1]
    assert not old_events.are_left(world.db.read)


async def test_an_old_event_can_be_redacted_before_its_turn(world: World, autojump_clock: MockClock) -> None:
    room = await a_room_of(world, BOB)
    root = await world.say(ALICE, room, "root")
    child = await reply(world, BOB, room, root, "secret")
    await forget_the_indexes(world, child)
    await world.rooms.redact(BOB, room, child, {}, "PHONE", "t1")
    while await world.db.write(old_events.index):
        pass
    assert summed(world, ALICE, room, root) == {}
    assert found(await search(world, ALICE, "secret")) == []


async def test_a_new_database_has_none(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "db", Runtime()) as db:
        assert not old_events.are_left(db.read)
