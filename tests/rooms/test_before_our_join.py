# SPDX-License-Identifier: Apache-2.0
"""What was said before we came into a room is history, whichever way we get to hear of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.federation_errors import Unreachable
from minihs.rooms.service import Rooms
from tests.rooms import invariants
from tests.rooms.world import World, state_of, stored, timeline_of, worlds

ALICE, BOB, CAROL = "@alice:a.test", "@bob:b.test", "@carol:c.test"


def news_of(server: Rooms, room_id: str) -> set[str]:
    """Events that clients were given as they came."""
    rows = server.parts.db.read.execute(
        "SELECT i.event_id FROM events e JOIN event_ids i USING (event_nid) JOIN rooms r USING (room_nid) "
        "WHERE r.room_id = ? AND e.arrival > 0",
        (room_id,),
    ).fetchall()
    return {row[0] for row in rows}


async def late_comer(world: World, *, again: bool) -> tuple[str, list[str], str]:
    """Alice and Bob talk; Bob is cut off and says something more; Carol joins. (room, what was said, late)"""
    a, b, c = (world.servers[name] for name in ("a.test", "b.test", "c.test"))
    room_id = await a.create(ALICE, {"preset": "public_chat"})
    await b.join(BOB, room_id, via=["a.test"])
    await world.deliver()
    if again:
        await c.join(CAROL, room_id, via=["a.test"])
        await world.deliver()
        await c.leave(CAROL, room_id)
        await world.deliver()
    said = [await a.send(ALICE, room_id, "m.room.message", {"n": n}) for n in range(40)]
    await world.deliver()
    world.separate("b.test")
    late = await b.send(BOB, room_id, "m.room.message", {"late": True})
    said += [await a.send(ALICE, room_id, "m.room.message", {"n": n}) for n in range(40, 45)]
    await c.join(CAROL, room_id, via=["a.test"])
    await world.deliver()
    world.reunite()
    return room_id, said, late


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("direct", [False, True])
async def test_a_late_event_does_not_bring_old_ones_in_as_news(
    tmp_path: Path, direct: bool, again: bool
) -> None:
    """Its parent is older than our join, so there is no end to what might be missing between it and what we
    have."""
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        room_id, said, late = await late_comer(world, again=again)
        a, c = world.servers["a.test"], world.servers["c.test"]
        before = news_of(c, room_id)
        if direct:
            event = world.servers["b.test"].parts.graph.event(late)
            assert event is not None
            await world.send("b.test", "c.test", [event.json])
        await world.deliver()
        new = await a.send(ALICE, room_id, "m.room.message", {"new": True})
        await world.deliver()
        news = news_of(c, room_id) - before
        assert not news & set(said)
        assert new in news
        assert late in news or not direct
        assert set(c.parts.head(room_id).tips) == {new}
        assert state_of(c, room_id) == state_of(a, room_id)
        invariants.check(c, room_id)
        # Nothing is lost by it: whoever scrolls back finds all.
        for _ in range(30):
            if not await c.backfill(room_id, before=(10**9, 0), limit=20):
                break
        shown = timeline_of(c, room_id)
        assert {*said, late, new} <= set(shown)
        assert [each for each in shown if each in said] == said
        assert all(stored(c, event_id) is not None for event_id in timeline_of(a, room_id))
        invariants.check(c, room_id)


async def test_what_we_missed_since_our_join_is_news(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        room_id, _, _ = await late_comer(world, again=False)
        a, c = world.servers["a.test"], world.servers["c.test"]
        await world.deliver()
        world.separate("c.test")
        missed = [await a.send(ALICE, room_id, "m.room.message", {"missed": n}) for n in range(30)]
        newest = a.parts.graph.event(missed[-1])
        assert newest is not None
        world.reunite()
        await world.send("a.test", "c.test", [newest.json])
        assert set(missed) <= news_of(c, room_id)


async def test_history_that_only_its_sender_has_is_found_by_scrolling(tmp_path: Path) -> None:
    """However many other servers are in the room, and whatever their names."""
    names = [f"{letter}.test" for letter in "abcdez"]
    async with worlds(tmp_path, *names) as world:
        a, z = world.servers["a.test"], world.servers["z.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        for name in names[1:]:
            await world.servers[name].join(f"@user:{name}", room_id, via=["a.test"])
            await world.deliver()
        said = [await z.send("@user:z.test", room_id, "m.room.message", {"n": n}) for n in range(60)]
        last = stored(z, said[-1])
        assert last is not None

        async def down(_honest: Any, _asker: str, *_args: Any) -> Any:
            raise Unreachable("z.test", "is down")

        world.hooks["z.test", "get_missing_events"] = down
        await world.send("z.test", "a.test", [last.event.json])  # the others have heard nothing of it
        assert not set(said[:-1]) & set(timeline_of(a, room_id))
        assert said[-1] in timeline_of(a, room_id)
        for _ in range(10):
            if not await a.backfill(room_id, before=(10_000, 0), limit=20):
                break
        assert set(said) <= set(timeline_of(a, room_id))
