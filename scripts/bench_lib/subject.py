# SPDX-License-Identifier: Apache-2.0
"""One server under test, the peers around it, and how large the run is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import trio

from tests.interop.kit.authority import Authority
from tests.interop.kit.client import Client
from tests.interop.kit.homeserver import Homeserver
from tests.interop.kit.peer import Peer


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each scenario does."""

    rooms: int = 50
    idle_seconds: float = 20.0
    sends: int = 200
    senders: int = 8
    pings: int = 60
    transactions: int = 10  # of 50 PDUs
    loud_transactions: int = 1_600  # more than a server takes in while the quiet one is measured
    outbound_one: int = 60
    outbound_many: int = 20
    destinations: int = 20
    backfill_pages: int = 60
    members: tuple[int, ...] = (1_000, 10_000)
    branch: int = 200
    sync_rooms: int = 20
    disk_messages: int = 1_000
    starts: int = 3
    missed: int = 1_000
    crowd: int = 500  # servers in one room
    dead: int = 100  # of them
    crowd_messages: int = 5
    after_seconds: float = 60.0


QUICK = Sizes(
    rooms=10,
    idle_seconds=5.0,
    sends=60,
    pings=20,
    transactions=4,
    loud_transactions=800,
    outbound_one=20,
    outbound_many=8,
    backfill_pages=20,
    members=(1_000,),
    branch=60,
    disk_messages=200,
    starts=1,
    missed=300,
    crowd=60,
    dead=12,
    crowd_messages=3,
    after_seconds=20.0,
)


@dataclass(slots=True)
class Subject:
    server: Homeserver
    authority: Authority
    nursery: trio.Nursery
    sizes: Sizes
    clients: list[Client] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    _names: itertools.count[int] = field(default_factory=itertools.count)
    _running: dict[int, tuple[trio.CancelScope, trio.Event]] = field(default_factory=dict)  # by port

    async def person(self) -> Client:
        client = await self.server.register(f"person{next(self._names)}")
        self.clients.append(client)
        return client

    async def people(self, count: int) -> list[Client]:
        return [await self.person() for _ in range(count)]

    async def peer(self) -> Peer:
        peer = Peer(self.authority)
        await self.start(peer)
        self.peers.append(peer)
        return peer

    async def start(self, peer: Peer) -> None:
        """Lets it answer; also again, after `stop`."""
        await self.nursery.start(self._serve, peer)

    async def stop(self, peer: Peer) -> None:
        """It neither answers nor keeps a connection, and its port is free."""
        scope, ended = self._running.pop(peer.port)
        scope.cancel()
        await ended.wait()

    async def _serve(self, peer: Peer, *, task_status: trio.TaskStatus[None]) -> None:
        ended = trio.Event()
        with trio.CancelScope() as scope:
            self._running[peer.port] = scope, ended
            await peer.serve(task_status=task_status)
        ended.set()

    async def hang_up(self) -> None:
        for client in self.clients:
            await client.aclose()
        for peer in self.peers:
            await peer.aclose()
        self.clients.clear()
