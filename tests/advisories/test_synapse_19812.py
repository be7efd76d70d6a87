# SPDX-License-Identifier: Apache-2.0
"""Synapse #19812: `min_depth` of get_missing_events was not honoured, and answers were huge."""

from __future__ import annotations

from pathlib import Path

from minihs.store.events import Outcome
from tests.advisories.kit import V1, cpu_budget, seg, siege


async def test_we_give_nothing_from_below_the_depth(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        sent = [await at.alice.send(at.room, f"message {n}") for n in range(30)]
        depths = {event_id: at.rooms.parts.graph.stored(event_id) for event_id in sent}
        lowest = depths[sent[20]]
        assert lowest is not None
        body = {
            "earliest_events": [],
            "latest_events": [sent[-1]],
            "limit": 10_000,
            "min_depth": lowest.event.depth,
        }
        status, answer = await at.ask("POST", f"{V1}/get_missing_events/{seg(at.room)}", body)
        assert status == 200
        bodies = [pdu["content"]["body"] for pdu in answer["events"]]
        assert bodies == [f"message {n}" for n in range(20, 29)]
        for rubbish in (-1, "x", None, 1.5, 2**70, [], -(2**63)):
            status, answer = await at.ask(
                "POST", f"{V1}/get_missing_events/{seg(at.room)}", {**body, "min_depth": rubbish}
            )
            assert status in (200, 400), rubbish
            assert status == 400 or len(answer["events"]) <= 20


async def test_who_gives_us_a_thousand_gives_us_what_we_asked_for(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        wanted = at.event()
        more, last = [], at.forger.tips
        for _ in range(1000):
            pdu = at.event(content={"body": "x" * 500}, prev=last)
            last = [at.id_of(pdu)]
            more.append(pdu)
        at.answer_gaps(get_missing_events={"events": [wanted, *more]})
        child = at.event(prev=[at.id_of(wanted)])
        with cpu_budget(5):
            await at.send(child)
        assert at.outcome(at.id_of(child)) is Outcome.ACCEPTED
        assert not any(at.outcome(at.id_of(pdu)) for pdu in more)
        await at.unharmed()
