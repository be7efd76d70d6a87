# SPDX-License-Identifier: Apache-2.0
"""Homeservers that federate, each behind a gate of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
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
class Group:
    """Two servers or more. With two they can be parted."""

    sides: tuple[Side, ...]

    @property
    def servers(self) -> tuple[Homeserver, ...]:
        return tuple(side.server for side in self.sides)

    def part(self) -> None:
        """None reaches another any more; their own clients still reach them."""
        for side in self.sides:
            side.gate.shut()

    def heal(self) -> None:
        for side in self.sides:
            side.gate.open()

    async def start_again(self) -> None:
        """Whatever the last test left: all run and reach each other."""
        self.heal()
        for server in self.servers:
            if not server.running:
                await server.kill()
                await server.start()


@contextmanager
def running_group(
    kinds: Sequence[str], folder: Path, options: Mapping[str, object] | None = None
) -> Iterator[Group]:
    """Blocking: for fixtures that outlive one test's loop. `options`: of `Place`, for all servers."""
    authority = Authority.create(folder / "ca")
    with ExitStack() as stack:
        sides = []
        # Host names and IP literals take turns: both kinds of server name with a port.
        for number, (kind, host) in enumerate(zip(kinds, cycle(("localhost", "127.0.0.1")), strict=False)):
            public, inner = free_port(), free_port()
            place = Place(
                f"{host}:{public}",
                folder / f"{number}-{kind}",
                inner,
                free_port(),
                authority,
                options=dict(options or {}),
            )
            sides.append(Side(KINDS[kind](place), stack.enter_context(Gate(public, inner))))
        group = Group(tuple(sides))
        try:
            trio.run(_start, group)
            yield group
        finally:
            trio.run(_stop, group)


async def _start(group: Group) -> None:
    async with trio.open_nursery() as nursery:
        for server in group.servers:
            nursery.start_soon(server.start)


async def _stop(group: Group) -> None:
    async with trio.open_nursery() as nursery:
        for server in group.servers:
            nursery.start_soon(server.stop)
