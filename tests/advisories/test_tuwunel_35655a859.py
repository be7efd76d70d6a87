# SPDX-License-Identifier: Apache-2.0
"""Tuwunel 35655a859, 5d466e828, f3ad50ed0, eb5486b7e, 422d31359 (2026): the walk back over missing events,
forward extremities, fetches of what is missing, answers held in memory and push rules had no bounds.

All bounds are in docs/limits.md, each with the test that goes one beyond it. Here: what one hostile PDU, and
one hostile member, can make a server do.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import trio

from minihs.matrix import push_rules
from minihs.testing.hostile import Received
from tests.advisories.kit import V1, JsonObject, siege


async def test_a_walk_back_that_never_arrives(tmp_path: Path) -> None:
    """For each event that is asked for there is another before it."""
    async with siege(tmp_path) as at:
        numbers: Iterator[int] = count()
        made: dict[str, JsonObject] = {}

        def before() -> str:
            pdu = at.event(content={"n": next(numbers)}, prev=["$" + f"{next(numbers)}".rjust(43, "x")])
            made[at.id_of(pdu)] = pdu
            return at.id_of(pdu)

        chain = [before()]
        first = at.event(prev=chain)
        for _ in range(500):
            pdu = at.event(content={"n": next(numbers)}, prev=["$" + f"{next(numbers)}".rjust(43, "x")])
            made[at.id_of(pdu)] = pdu

        asked: list[Received] = []

        def missing(received: Received) -> JsonObject:
            asked.append(received)
            # Whatever is asked: as many events as possible, all of them real, none of them the end.
            return {"events": list(made.values())[:500]}

        at.answer_gaps(get_missing_events=missing)
        await at.send(first)
        assert 0 < len(asked) <= 10
        requests = len(at.peer.received(f"{V1}/"))
        assert requests < 200
        # It is deferred, and tried again at ever longer intervals, not for ever.
        await trio.sleep(24 * 3600)
        assert len(at.peer.received(f"{V1}/")) < 20 * requests
        await at.unharmed()


async def test_a_hundred_parents_that_nobody_has(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        at.answer_gaps()
        at.serve_events({})
        pdus = [at.event(prev=[f"${n:02}{k:02}".ljust(44, "x") for k in range(20)]) for n in range(50)]
        await at.send(*pdus)
        per_pdu = len(at.peer.received(f"{V1}/")) / 50
        assert per_pdu < 60
        await at.unharmed()


async def test_ends_do_not_pile_up(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        start = at.forger.tips
        for _ in range(4):
            await at.send(*(at.event(prev=start) for _ in range(50)))
            assert len(at.rooms.parts.head(at.room).tips) <= 20
        sent = await at.alice.send(at.room, "on top of them")
        found = at.rooms.parts.graph.stored(sent)
        assert found is not None
        assert len(found.event.prev_events) <= 20
        await at.unharmed()


async def test_large_answers_are_not_made_all_at_once(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        event = await at.alice.send(at.room, "here")
        statuses: list[int] = []

        async def ask() -> None:
            status, _ = await at.ask("GET", f"{V1}/state/{at.room}?event_id={event}")
            statuses.append(status)

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(ask)
        assert set(statuses) <= {200, 429}
        assert statuses.count(200) >= 4
        await at.unharmed()


async def test_push_rules_have_an_end(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(push_rules, "MAX_RULES", 5)
    async with siege(tmp_path) as at:
        statuses = []
        for number in range(7):
            rule = {"pattern": f"p{number}", "actions": []}
            statuses.append((await at.alice.ask("PUT", f"/pushrules/global/content/r{number}", rule))[0])
        assert statuses == [200] * 5 + [400] * 2
