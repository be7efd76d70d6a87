# SPDX-License-Identifier: Apache-2.0
"""What keeps one server, or one mistake repeated, from costing too much. All of it in memory, on the loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import trio

from minihs.matrix.errors import MatrixError

MAX_REMEMBERED = 2_000
"""Failures, and servers with a bucket."""


class LeakyBuckets:
    """A bucket of bytes for each server. Full: nothing more until some has leaked away."""

    def __init__(self, capacity: int, leak_per_second: float) -> None:
        self._capacity = capacity
        self._leak = leak_per_second
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def has_room(self, server: str) -> bool:
        return self._level(server) < self._capacity

    def add(self, server: str, count: int) -> None:
        level = self._level(server) + count
        self._levels[server] = (level, trio.current_time())
        self._levels.move_to_end(server)
        if len(self._levels) > MAX_REMEMBERED:
            self._levels.popitem(last=False)

    def _level(self, server: str) -> float:
        level, since = self._levels.get(server, (0.0, 0.0))
        return max(0.0, level - (trio.current_time() - since) * self._leak)


class FailureMemory:
    """What failed a moment ago fails again, without being tried."""

    def __init__(self) -> None:
        self._failures: OrderedDict[Hashable, tuple[float, MatrixError]] = OrderedDict()

    def check(self, key: Hashable) -> None:
        """Raise what is remembered."""
        found = self._failures.get(key)
        if found is None:
            return
        until, error = found
        if trio.current_time() >= until:
            del self._failures[key]
            return
        raise MatrixError(error.status, error.errcode, error.message, **error.extra)

    def remember(self, key: Hashable, error: MatrixError, seconds: float) -> MatrixError:
        """Keep it in mind; the same error back, to be raised."""
        if seconds > 0:
            self._failures[key] = (trio.current_time() + seconds, error)
            self._failures.move_to_end(key)
            if len(self._failures) > MAX_REMEMBERED:
                self._failures.popitem(last=False)
        return error

    def __len__(self) -> int:
        return len(self._failures)


class KeyedLimit:
    """At most so many at once for each key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._semaphores: dict[str, tuple[trio.Semaphore, int]] = {}
        """With how many hold or want one."""

    @asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        semaphore, users = self._semaphores.get(key, (trio.Semaphore(self._limit), 0))
        self._semaphores[key] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._semaphores[key]
            if users > 1:
                self._semaphores[key] = (semaphore, users - 1)
            else:
                del self._semaphores[key]
