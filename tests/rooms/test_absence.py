# SPDX-License-Identifier: Apache-2.0
"""After an absence, and looking for a point of time: other servers are asked for single events of a room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.federation_errors import Unreachable
from minihs.rooms.catch_up import SHORT_ABSENCE_MS
from tests.rooms import invariants
from tests.rooms.world import World, state_of, timeline_of, worlds

ALICE, BOB = "@alice:a.test", "@bob:b.test"


async def _room(world: World) -> str:
    a, b = world.servers["a.test"], world.servers["b.test"]
    room_id = await a.create(ALICE, {"preset": "public_chat"})
    await b.join(BOB, room_id, via=["a.test"])
    await world.deliver()
    await a.send(ALICE, room_id, "m.room.message", {})
    await world.deliver()
    return room_id


async def _nobody(honest: Any, *args: Any) -> Any:
    raise Unreachable("a.test", "is away")


@pytest.mark.parametrize("long", [True, False])
async def test_what_was_said_while_we_were_down_is_asked_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, long: bool
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        room_id = await _room(world)
        a = world.servers["a.test"]
        await world.stop("b.test")
        world.clock.ms += SHORT_ABSENCE_MS * 2 if long else 1000
        sent = [await a.send(ALICE, room_id, "m.room.message", {"n": n}) for n in range(30)]
        world.sent_up_to["a.test", "b.test"] = 10**9  # a.test has given up
        b = await world.start("b.test")
        await trio.sleep(60)
        shown = timeline_of(b, room_id)
        assert (shown[-30:] == sent) is long
        if long:
            assert state_of(a, room_id) == state_of(b, room_id)
            invariants.check(b, room_id)


async def test_it_is_no_harm_if_nobody_answers(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        room_id = await _room(world)
        await world.stop("b.test")
        world.clock.ms += SHORT_ABSENCE_MS * 2
        world.hooks["a.test", "timestamp_to_event"] = _nobody
        b = await world.start("b.test")
        before = timeline_of(b, room_id)
        await trio.sleep(60)
        assert ("b.test", "a.test", "timestamp_to_event") in world.asked
        assert timeline_of(b, room_id) == before


async def test_an_event_of_the_past_is_found_by_its_time(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        sent: list[str] = []
        for n in range(40):
            world.clock.ms += 60_000
            sent.append(await a.send(ALICE, room_id, "m.room.message", {"n": n}))
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        event = a.parts.graph.event(sent[20])
        assert event is not None
        ts = event.origin_server_ts - 5
        before = timeline_of(b, room_id)
        assert not await b.fetch_at(room_id, ts, forward=True, closer_than=ts + 2)
        assert timeline_of(b, room_id) == before
        assert await b.fetch_at(room_id, ts, forward=True, closer_than=None)
        shown = timeline_of(b, room_id)
        assert sent[20] in shown
        assert [each for each in shown if each in sent] == [each for each in sent if each in shown]
        invariants.check(b, room_id)
        # The gaps around it are filled as the client pages.
        for _ in range(30):
            if not await b.backfill(room_id, before=(10**9, 0), limit=20):
                break
        shown = timeline_of(b, room_id)
        assert [each for each in shown if each in sent] == sent
        invariants.check(b, room_id)
        assert state_of(a, room_id) == state_of(b, room_id)
        assert not await b.fetch_at("!unknown:a.test", ts, forward=True, closer_than=None)
        world.hooks["a.test", "timestamp_to_event"] = _nobody
        assert not await b.fetch_at(room_id, ts, forward=True, closer_than=None)


async def test_an_event_by_its_time_that_is_then_not_given(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await a.send(ALICE, room_id, "m.room.message", {})
        await b.join(BOB, room_id, via=["a.test"])
        before = timeline_of(b, room_id)
        world.hooks["a.test", "backfill"] = _nobody
        assert not await b.fetch_at(room_id, 0, forward=True, closer_than=None)

        async def nothing(honest: Any, *args: Any) -> Any:
            return []

        world.hooks["a.test", "backfill"] = nothing
        assert not await b.fetch_at(room_id, 0, forward=True, closer_than=None)
        assert timeline_of(b, room_id) == before
