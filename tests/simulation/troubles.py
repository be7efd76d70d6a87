# SPDX-License-Identifier: Apache-2.0
"""What happens to networks and machines: cuts, slow and lossy lines, clocks that jump, restarts and power
cuts."""

from __future__ import annotations

import random

import trio

from minihs.testing.servers import Cluster
from tests.simulation.crowd import Ledger
from tests.simulation.stage import crash

MAX_WRONG_MS = 1_800_000
"""So far from the truth a clock may jump."""


class Troubles:
    """One trouble after the other, with peace between them."""

    def __init__(self, world: Cluster, seed: int, ledger: Ledger) -> None:
        self.world = world
        self.random = random.Random(f"troubles {seed}")
        self.ledger = ledger
        self.seen: set[str] = set()
        self._jumped: dict[str, int] = {}
        """By how many milliseconds a server's clock was moved so far."""
        self._peace = trio.Lock()

    async def run(self) -> None:
        kinds = [self.cut, self.cut, self.lossy, self.slow, self.clock, self.restart, self.power_cut]
        while True:
            await trio.sleep(self.random.uniform(1, 8))
            async with self._peace:
                await self.random.choice(kinds)()

    async def end(self) -> None:
        """Wait for the trouble under way to be over, and let no other begin."""
        await self._peace.acquire()

    def _begin(self, kind: str, *about: str) -> None:
        self.seen.add(kind)
        self.ledger.note(f"{kind} {' '.join(about)}")

    async def cut(self) -> None:
        """The servers fall into two parts that do not see each other."""
        names = self.random.sample(list(self.world.servers), len(self.world.servers))
        split = self.random.randrange(1, len(names))
        one, other = tuple(names[:split]), tuple(names[split:])
        self._begin("cut", *one, "from", *other)
        self.world.partition(one, other)
        await trio.sleep(self.random.uniform(5, 60))
        self.world.heal()
        self.ledger.note("healed")

    async def lossy(self) -> None:
        await self._on_a_link("lossy", loss=0.3, latency=0.03)

    async def slow(self) -> None:
        await self._on_a_link("slow", loss=0.0, latency=2.0)

    async def _on_a_link(self, kind: str, *, loss: float, latency: float) -> None:
        one, other = self.random.sample(list(self.world.servers), 2)
        self._begin(kind, one, other)
        link = self.world.internet.link(self.world[one].host, self.world[other].host)
        before = link.loss, link.latency
        link.loss, link.latency = loss, latency
        await trio.sleep(self.random.uniform(10, 60))
        link.loss, link.latency = before

    async def clock(self) -> None:
        """A wall clock is set, forward or back, while its server runs. It stays wrong."""
        name = self.random.choice(list(self.world.servers))
        wrong = self.random.randint(-MAX_WRONG_MS, MAX_WRONG_MS)
        self._begin("clock", name, f"{wrong} ms")
        self.world[name].clock.step(wrong - self._jumped.get(name, 0))
        self._jumped[name] = wrong

    async def restart(self) -> None:
        name = self.random.choice(list(self.world.servers))
        self._begin("restart", name)
        await self.world.stop(name)
        await trio.sleep(self.random.uniform(0, 20))
        await self.world.start(name)

    async def power_cut(self) -> None:
        name = self.random.choice(list(self.world.servers))
        self._begin("power-cut", name)
        await crash(self.world, name)
        await trio.sleep(self.random.uniform(0, 20))
        await self.world.start(name)
