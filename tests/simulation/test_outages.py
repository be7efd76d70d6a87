# SPDX-License-Identifier: Apache-2.0
"""A server that is away for long."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.simulation.crowd import Crowd
from tests.simulation.inspection import (
    Holding,
    check_extremities,
    check_inbox_is_empty,
    check_nothing_lost,
    check_timeline,
)
from tests.simulation.stage import run_seeded, stage
from tests.simulation.watcher import Watcher

HOUR = 3600.0
DAY = 24 * HOUR


def test_a_server_that_was_away_for_48_hours_misses_nothing(tmp_path: Path) -> None:
    run_seeded(_away_for_48_hours, 1, tmp_path)


async def _away_for_48_hours(folder: Path) -> None:
    names = ["a.test", "b.test", "c.test"]
    async with stage(names, folder, seed=1) as world:
        crowd = Crowd(world, 1)
        await crowd.gather("12")
        watchers = {name: Watcher(crowd.observers[name], crowd.room_id, limit=10) for name in names}
        for watcher in watchers.values():
            await watcher.step(0)
        await crowd.message(crowd.people["@u1:c.test"], "")  # it has something to say, too, and no time left
        await world.stop("c.test")
        for _ in range(24):
            for name in ("a.test", "b.test"):
                await crowd.message(crowd.people[f"@u1:{name}"], "")
                await crowd.own_state(crowd.people[f"@u2:{name}"], "")
            await trio.sleep(2 * HOUR)
        await world.start("c.test")
        # Nobody says anything new: what was missed comes by itself, when those who have it try again.
        await trio.sleep(2 * DAY)
        last = await crowd.host.send(crowd.room_id, "the last word")
        crowd.ledger.events[last], crowd.ledger.texts[last] = "message", "the last word"
        await trio.sleep(HOUR)
        states = []
        for name, watcher in watchers.items():
            for _ in range(3):
                await watcher.step(0)
            holding = Holding.of(world, name, crowd.room_id)
            check_inbox_is_empty(holding)
            check_nothing_lost(holding, crowd.ledger)
            check_extremities(holding, last)
            check_timeline(watcher, holding, crowd.ledger)
            state = await crowd.observers[name].state(crowd.room_id)
            states.append({key: event["event_id"] for key, event in state.items()})
        assert len(crowd.ledger.texts) == 24 * 2 + 2
        assert states[0] == states[1] == states[2]
