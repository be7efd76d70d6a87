# SPDX-License-Identifier: Apache-2.0
"""Whole servers, many in one trio loop, on an internet in memory.

    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice = await world["one.test"].user("alice")
        bob = await world["two.test"].user("bob")
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id, "one.test")

Run it under a clock that jumps (`testing.clock.run_virtual`): time-outs and pauses then cost nothing.
A server can be stopped and started again on its own data, or cut off from others (`world.internet`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from minihs import config
from minihs.matrix.ids import parse_server_name
from minihs.runtime import Runtime
from minihs.server import Server
from minihs.testing.api import ApiClient
from minihs.testing.clock import VirtualClock, virtual_runtime
from minihs.testing.internet import Host, Internet, SocketAddress

PASSWORD = "correct horse battery staple"


class TestServer:
    """One server: its host, its data, and the process-like thing that can be started and stopped."""

    __test__ = False

    def __init__(
        self, internet: Internet, name: str, folder: Path, clock: VirtualClock, settings: Mapping[str, Any]
    ) -> None:
        parsed = parse_server_name(name)
        if parsed is None:
            raise ValueError(f"{name!r} is not a server name")
        self.name = name
        self.internet = internet
        self.host: Host = internet.host(parsed.host)
        self.clock = clock
        self._starts = 0
        self._server: Server | None = None
        self._stop: trio.Event | None = None
        self._stopped = trio.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self.config = config.check(
            config.from_mapping(
                {
                    "server_name": name,
                    "data_dir": str(folder / parsed.host),
                    "registration": {"mode": "open"},
                    "rate_limits": {"enabled": False},
                    "federation": {"ca_file": internet.write_ca_file(folder), "notaries": []},
                    **settings,
                }
            ),
            folder,
        )
        self.host.listen(parsed.port or 8448, self._handle)

    @property
    def is_running(self) -> bool:
        return self._server is not None

    @property
    def server(self) -> Server:
        if self._server is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._server

    def runtime(self) -> Runtime:
        """The seed differs from start to start, as chance does."""
        self._starts += 1
        return virtual_runtime(f"{self.name} {self._starts}", self.clock)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be up until `stop`."""
        self._stop, self._stopped = trio.Event(), trio.Event()
        try:
            async with Server.open(
                self.config,
                self.runtime(),
                network=self.host.network,
                resolver=self.host.resolver,
                inline_database=True,
            ) as self._server:
                self.host.up()
                task_status.started()
                await self._stop.wait()
                self.host.down()
        finally:
            self._server = None
            self._stopped.set()

    async def stop(self) -> None:
        """Go down at once: connections break, and new ones are refused."""
        if self._stop is not None:
            self._stop.set()
            await self._stopped.wait()

    async def user(self, localpart: str, password: str = PASSWORD) -> ApiClient:
        """Register an account and log in."""
        client = self.client()
        await client.register(localpart, password)
        return client

    def client(self) -> ApiClient:
        """Somebody not logged in."""
        return ApiClient(self.internet, self.name)

    async def _handle(self, stream: trio.abc.Stream, peer: SocketAddress, local: SocketAddress) -> None:
        if self._server is not None:
            await self._server.handle(stream, peer, local)

    def __repr__(self) -> str:
        return f"<TestServer {self.name}{'' if self._server else ' stopped'}>"


class Cluster:
    """The servers by name, and the internet between them."""

    def __init__(self, internet: Internet, clock: VirtualClock, nursery: trio.Nursery, folder: Path) -> None:
        self.internet = internet
        self.clock = clock
        self.servers: dict[str, TestServer] = {}
        self._nursery = nursery
        self._folder = folder

    def __getitem__(self, name: str) -> TestServer:
        return self.servers[name]

    async def add(self, name: str, **settings: Any) -> TestServer:
        """Put up another server."""
        server = TestServer(self.internet, name, self._folder, self.clock, settings)
        self.servers[name] = server
        await self.start(name)
        return server

    async def start(self, name: str) -> None:
        """Start a server that was stopped, on the data that it left."""
        await self._nursery.start(self.servers[name].run)

    async def stop(self, name: str) -> None:
        await self.servers[name].stop()

    def partition(self, *sides: tuple[str, ...]) -> None:
        """Cut the servers of one side off from those of the others."""
        self.internet.partition(*([self.servers[name].host for name in side] for side in sides))

    def heal(self) -> None:
        self.internet.heal()


@asynccontextmanager
async def cluster(
    *names: str, folder: Path, seed: int | str = 0, latency: float = 0.0, **settings: Any
) -> AsyncIterator[Cluster]:
    """Servers of these names, up and reachable. `settings` go into each one's configuration."""
    async with Internet.open(seed) as internet:
        internet.latency = latency
        async with trio.open_nursery() as nursery:
            world = Cluster(internet, VirtualClock(), nursery, folder)
            for name in names:
                await world.add(name, **settings)
            yield world
            for name in names:
                await world.stop(name)
            nursery.cancel_scope.cancel()


async def eventually(
    condition: Callable[[], object], *, within: float = 60.0, what: str = "what was waited for"
) -> None:
    """Wait, in trio's time, until the condition holds; AssertionError if it never does."""
    with trio.move_on_after(within):
        while True:
            if condition():
                return
            await trio.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {within} s")
