# SPDX-License-Identifier: Apache-2.0
"""What a server is given from outside: time, chance and threads.

A server never reads the wall clock, draws a random number or starts a thread by itself; it is handed these
three. Tests hand it others, and so run days of federation in seconds, the same way for the same seed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio


class Clock(Protocol):
    """Wall time. (For *durations* and deadlines use trio's own clock, which tests replace as well.)"""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...


EARLIEST_PLAUSIBLE_MS = 1_704_067_200_000
"""2024-01-01."""


def is_plausible(now_ms: int) -> bool:
    """Small boards wake up in 1970. By such a clock keys can't be judged, and what is signed would bear that
    date for ever."""
    return now_ms >= EARLIEST_PLAUSIBLE_MS


class Randomness(Protocol):
    """Unpredictable bytes for secrets and identifiers, and numbers for jitter."""

    def token_bytes(self, size: int) -> bytes: ...

    def token_urlsafe(self, size: int) -> str:
        """URL-safe text made of `size` random bytes (about 1.3 characters a byte)."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number for jitter; never for secrets."""
        ...


class Threads(Protocol):
    """Where blocking or CPU-heavy work goes, so that it does not stall the event loop."""

    async def run[T](self, function: Callable[..., T], *args: object) -> T:
        """Run `function(*args)` off the loop and return its result.

        The call is not abandoned on cancellation: it is waited for, so no thread outlives its parent.
        """
        ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class SystemRandomness:
    def __init__(self) -> None:
        self._random = secrets.SystemRandom()

    def token_bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def token_urlsafe(self, size: int) -> str:
        return secrets.token_urlsafe(size)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class WorkerThreads:
    """trio's worker threads, at most `limit` at once."""

    def __init__(self, limit: int = 4) -> None:
        self._limiter = trio.CapacityLimiter(limit)

    async def run[T](self, function: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(lambda: function(*args), limiter=self._limiter)


class InlineThreads:
    """Runs the work at once on the loop: for tests under an autojump clock, which threads would break."""

    async def run[T](self, function: Callable[..., T], *args: object) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The three, together, as every part of a server receives them."""

    clock: Clock = field(default_factory=SystemClock)
    random: Randomness = field(default_factory=SystemRandomness)
    threads: Threads = field(default_factory=WorkerThreads)
