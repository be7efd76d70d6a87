# SPDX-License-Identifier: Apache-2.0
"""Connections that are kept open, one small pool for each server that we talk to.

A pool of its own per server keeps a slow one from starving the others. Pools nobody used for a while are
closed when others come and go; there is no timer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from minihs.federation.connections import Connections
from minihs.federation.dial import Dialler
from minihs.federation.discovery import Route
from minihs.runtime import Runtime

CONNECTIONS_PER_SERVER = 4
"""One carries transactions; the others are for what else there is to ask meanwhile."""

MAX_POOLS = 600
IDLE_SECONDS = 120.0


@dataclass(slots=True, eq=False)
class _Entry:
    route: Route
    pool: Connections
    found_at: float
    """trio time of the discovery."""
    users: int = 0
    last_used: float = 0.0
    retired: bool = False


@dataclass(slots=True)
class Pools:
    """Mutable state: `_entries`, ordered by last use; touched on the loop only, never across an await."""

    runtime: Runtime
    dialler: Dialler
    _entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)

    def route(self, destination: str) -> Route | None:
        """The route in use, if it is still good."""
        entry = self._entries.get(destination)
        if entry is None or entry.route.expires_ms <= self.runtime.clock.now_ms():
            return None
        return entry.route

    def route_age(self, destination: str) -> float:
        """Seconds since the route was found."""
        entry = self._entries.get(destination)
        return 0.0 if entry is None else trio.current_time() - entry.found_at

    def is_connected(self, destination: str) -> bool:
        entry = self._entries.get(destination)
        return entry is not None and entry.pool.is_open

    async def set_route(self, destination: str, route: Route) -> None:
        """Use this route from now on. Connections made for another one are not used for new requests."""
        now = trio.current_time()
        entry = self._entries.get(destination)
        if entry is not None and _same_way(entry.route, route):
            entry.route, entry.found_at = route, now
            return
        if entry is not None:
            await self._retire(destination)
        pool = Connections(self.dialler, lambda: route.targets(self.runtime), most=CONNECTIONS_PER_SERVER)
        self._entries[destination] = _Entry(route, pool, now, last_used=now)

    async def forget(self, destination: str) -> None:
        if destination in self._entries:
            await self._retire(destination)

    @asynccontextmanager
    async def use(self, destination: str) -> AsyncIterator[tuple[Route, Connections]]:
        """The server's pool, kept from being closed meanwhile. `set_route` must have been called."""
        entry = self._entries[destination]
        entry.users += 1
        try:
            yield entry.route, entry.pool
        finally:
            entry.users -= 1
            entry.last_used = trio.current_time()
            if not entry.retired:
                self._entries.move_to_end(destination)
            if (entry.retired and not entry.users) or self._has_unused():
                with trio.CancelScope(shield=True):  # closing sends nothing and waits for nobody
                    if entry.retired and not entry.users:
                        await entry.pool.aclose()
                    await self._close_unused()

    def _has_unused(self) -> bool:
        """Whether there may be one to close: the one that nobody used for longest tells."""
        oldest = next(iter(self._entries.values()), None)
        return oldest is not None and not self._is_kept(oldest)

    def _is_kept(self, entry: _Entry) -> bool:
        recent = trio.current_time() - entry.last_used < IDLE_SECONDS
        return recent and len(self._entries) <= MAX_POOLS

    async def _close_unused(self) -> None:
        entries = list(self._entries.items())
        if len(entries) > MAX_POOLS:
            # Servers that don't answer must not push out connections to those that do.
            entries.sort(key=lambda each: each[1].pool.is_open)
        for destination, entry in entries:
            # (Closing others may have taken a moment: it must still be this one.)
            if self._is_kept(entry) or entry.users or self._entries.get(destination) is not entry:
                continue
            await self._retire(destination)

    async def _retire(self, destination: str) -> None:
        entry = self._entries.pop(destination)
        entry.retired = True
        if not entry.users:
            await entry.pool.aclose()

    async def aclose(self) -> None:
        for destination in list(self._entries):
            await self._retire(destination)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        busy = sum(1 for entry in self._entries.values() if entry.users)
        return f"<Pools: {len(self._entries)} servers, {busy} busy>"


def _same_way(one: Route, other: Route) -> bool:
    return (one.verify_name, one.host_header, one.places) == (
        other.verify_name,
        other.host_header,
        other.places,
    )
