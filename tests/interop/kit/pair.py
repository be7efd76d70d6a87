# SPDX-License-Identifier: Apache-2.0
"""Two homeservers that federate, each behind a gate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.interop.kit.authority import Authority
from tests.interop.kit.gate import Gate
from tests.interop.kit.homeserver import Homeserver, Place
from tests.interop.kit.minihs import Minihs
from tests.interop.kit.ports import free_port
from tests.interop.kit.synapse import Synapse

KINDS: dict[str, type[Homeserver]] = {"minihs": Minihs, "synapse": Synapse}


@dataclass(frozen=True, slots=True)
class Side:
    server: Homeserver
    gate: Gate


@dataclass(frozen=True, slots=True)
class Pair:
    sides: tuple[Side, Side]

    @property
    def servers(self) -> tuple[Homeserver, Homeserver]:
        return self.sides[0].server, self.sides[1].server

    def part(self) -> None:
        """Neither reaches the other any more; their own clients still reach them."""
        for side in self.sides:
            side.gate.shut()

    def heal(self) -> None:
        for side in self.sides:
            side.gate.open()

    async def start_again(self) -> None:
        """Whatever the last test left: both run and reach each other."""
        self.heal()
        for server in self.servers:
            if not server.running:
                await server.kill()
                await server.start()


@contextmanager
def running_pair(kinds: tuple[str, str], folder: Path) -> Iterator[Pair]:
    """Blocking: for fixtures that outlive one test's loop."""
    authority = Authority.create(folder / "ca")
    with ExitStack() as stack:
        sides = []
        # One is called by a host name, the other by an IP literal: both kinds of server name with a port.
        for number, (kind, host) in enumerate(zip(kinds, ("localhost", "127.0.0.1"), strict=True)):
            public, inner = free_port(), free_port()
            place = Place(f"{host}:{public}", folder / f"{number}-{kind}", inner, free_port(), authority)
            sides.append(Side(KINDS[kind](place), stack.enter_context(Gate(public, inner))))
        pair = Pair((sides[0], sides[1]))
        try:
            trio.run(_start_both, pair)
            yield pair
        finally:
            trio.run(_stop_both, pair)


async def _start_both(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        for server in pair.servers:
            nursery.start_soon(server.start)


async def _stop_both(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        for server in pair.servers:
            nursery.start_soon(server.stop)
