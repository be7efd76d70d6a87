# SPDX-License-Identifier: Apache-2.0
"""CVE-2024-31208: crafted events in a shared room filled the disk and the CPU, by an index over auth chains.

Three rooms built to be dear: one whose power levels changed a thousand times, one of many branches that all
disagree, one whose members all came by different levels. What an event costs there is bounded, in time, in
bytes on the disk and in memory.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import MALLORY, JsonObject, Siege, cpu_budget, siege

MIGHTY = {"power_level_content_override": {"users": {MALLORY: 100}}}
CPU_MS, BYTES, MEMORY = 50, 8_000, 10_000
"""An event may cost so much. Measured, with what the test itself does: 3 to 12 ms, 1.5 kB, 1 kB."""


async def send_all(at: Siege, pdus: Iterable[JsonObject]) -> None:
    pdus = list(pdus)
    for start in range(0, len(pdus), 50):
        answer = await at.send(*pdus[start : start + 50])
        assert not [said for said in answer.values() if said]


async def cost_is_bounded(at: Siege, pdus: list[JsonObject]) -> None:
    before = at.bytes_on_disk()
    with cpu_budget(len(pdus) * CPU_MS / 1000):
        await send_all(at, pdus)
    assert at.bytes_on_disk() - before < len(pdus) * BYTES


def levels_in_a_row(at: Siege, base: JsonObject, count: int) -> list[JsonObject]:
    """Power levels each of which cites the one before."""
    made: list[JsonObject] = []
    levels, last = at.state()["m.room.power_levels", ""], at.forger.tips
    member = at.state()["m.room.member", MALLORY]
    for number in range(count):
        content = {**base, "events": {**base.get("events", {}), "x.y": number % 50}}
        pdu = at.event("m.room.power_levels", content, "", prev=last, auth=[levels, member])
        levels, last = at.id_of(pdu), [at.id_of(pdu)]
        made.append(pdu)
    return made


async def test_a_long_auth_chain(tmp_path: Path) -> None:
    async with siege(tmp_path, room=MIGHTY) as at:
        base = await at.alice.get(f"/rooms/{at.room}/state/m.room.power_levels/")
        chain = levels_in_a_row(at, base, 1000)
        await cost_is_bounded(at, chain)
        assert at.state()["m.room.power_levels", ""] == at.id_of(chain[-1])
        # Forks at its end are resolved over that chain.
        start = at.forger.tips
        forks = [at.event("x.y", {"n": n}, "", prev=start) for n in range(15)]
        merges = [at.event(prev=[at.id_of(fork) for fork in forks[n : n + 5]]) for n in range(10)]
        await cost_is_bounded(at, [*forks, *merges])
        await at.unharmed()


async def test_branches_that_disagree_about_everything(tmp_path: Path) -> None:
    async with siege(tmp_path, room=MIGHTY) as at:
        start, branches, tips = at.forger.tips, [], []
        for branch in range(8):
            last = start
            for number in range(40):
                pdu = at.event("x.y", {"by": branch}, str(number), prev=last)
                last = [at.id_of(pdu)]
                branches.append(pdu)
            tips += last
        await cost_is_bounded(at, branches)
        # Hundreds of conflicted events, again and again in other combinations.
        merges = [at.event(prev=[tips[first], tips[second]]) for first in range(8) for second in range(first)]
        await cost_is_bounded(at, merges)
        assert at.outcome(at.id_of(merges[-1])) is Outcome.ACCEPTED
        await at.unharmed()


async def test_ends_without_end(tmp_path: Path) -> None:
    """Each event is an end of its own: they are tied together, not kept."""
    async with siege(tmp_path, room=MIGHTY) as at:
        start = at.forger.tips
        loose = [at.event("x.y", {"n": n}, str(n % 7), prev=start) for n in range(500)]
        await cost_is_bounded(at, loose)
        assert len(at.rooms.parts.head(at.room).tips) <= 20
        await at.unharmed()


@pytest.mark.slow
async def test_memory_does_not_grow_with_what_comes(tmp_path: Path) -> None:
    async with siege(tmp_path, room=MIGHTY) as at:

        async def some(count: int) -> None:
            for number in range(count):
                last = at.forger.tips
                pdus = []
                for each in range(25):
                    pdu = at.event("x.y", {"n": each, "x": "y" * 500}, f"{number} {each}", prev=last)
                    last = [at.id_of(pdu)]
                    pdus.append(pdu)
                await at.send(*pdus)
            at.logs.clear()
            at.peer.requests.clear()
            gc.collect()

        await some(15)  # caches fill
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await some(15)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (after - before) / (15 * 25) < MEMORY
