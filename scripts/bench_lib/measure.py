# SPDX-License-Identifier: Apache-2.0
"""How things are measured: CPU time and memory of the server's process, wall time of the client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from tests.interop.kit.homeserver import Homeserver

SETTLE_SECONDS = 0.3


@dataclass(slots=True)
class Span:
    """Filled in when the block ends."""

    cpu: float = 0.0  # seconds of the server's CPU, until it was quiet again
    cpu_until_end: float = 0.0  # the same, until the block ended
    wall: float = 0.0  # seconds on the client's clock
    peak: int = 0  # bytes, the largest resident size seen


@contextmanager
def wall_clock(span: Span) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        span.wall = time.perf_counter() - start


@asynccontextmanager
async def measured(server: Homeserver) -> AsyncIterator[Span]:
    """CPU includes what the server still does right after the block, until it is quiet; wall time doesn't."""
    span = Span()
    server.forget_peak()
    await quiet(server)
    before = server.cpu_seconds()
    with wall_clock(span):
        yield span
    span.cpu_until_end = server.cpu_seconds() - before
    await quiet(server)
    span.cpu = server.cpu_seconds() - before
    span.peak = server.peak_rss_bytes()


async def quiet(server: Homeserver, *, seconds: float = 60.0) -> None:
    """Waits until the server does next to nothing: what is left over must not be counted for what follows."""
    with trio.move_on_after(seconds):
        while True:
            before = server.cpu_seconds()
            await trio.sleep(SETTLE_SECONDS)
            if server.cpu_seconds() - before <= 0.1 * SETTLE_SECONDS:
                return


async def times(count: int, work: Callable[[int], Awaitable[object]]) -> list[float]:
    """Seconds that each of `count` calls took, one after the other."""
    taken = []
    for number in range(count):
        span = Span()
        with wall_clock(span):
            await work(number)
        taken.append(span.wall)
    return taken
