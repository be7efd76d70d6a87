# SPDX-License-Identifier: Apache-2.0
"""Time and chance for tests: days pass in seconds, and the same seed gives the same run.

Under trio's `MockClock(autojump_threshold=0)` (pytest-trio's `autojump_clock`) trio's clock jumps whenever
every task waits. `VirtualClock` derives the wall time from it, so the two never disagree. Threads would break
the jumping: work for them runs inline (`virtual_runtime`).
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
import trio.abc
from trio.testing import MockClock

from minihs.runtime import InlineThreads, Runtime


class VirtualClock:
    """Wall time that follows trio's clock. Starts near the real time, against which TLS checks
    certificates."""

    def __init__(self, epoch_ms: int | None = None) -> None:
        self._epoch_ms = time.time_ns() // 1_000_000 if epoch_ms is None else epoch_ms
        self._start: float | None = None
        self._offset_ms = 0

    def now_ms(self) -> int:
        now = trio.current_time()
        if self._start is None:
            self._start = now
        return self._epoch_ms + self._offset_ms + round((now - self._start) * 1000)

    def step(self, milliseconds: int) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; trio's clock goes on as it was."""
        self._offset_ms += milliseconds


class SeededRandom:
    """Predictable `Randomness`. Never for a real server."""

    def __init__(self, seed: int | str = 0) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def token_urlsafe(self, size: int) -> str:
        return base64.urlsafe_b64encode(self.token_bytes(size)).rstrip(b"=").decode("ascii")

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


def run_virtual(
    function: Callable[[], Awaitable[Any]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> Any:
    """`trio.run` with a clock that jumps. As `run=` of pytest-trio's marker it is in force whatever fixtures
    a test has (`autojump_clock` only works as a direct argument of the test)."""
    jumping = MockClock(autojump_threshold=0) if clock is None else clock
    return trio.run(function, clock=jumping, instruments=instruments)


def virtual_runtime(seed: int | str = 0, clock: VirtualClock | None = None) -> Runtime:
    """What a server in a test is given: virtual time, seeded chance, no threads."""
    return Runtime(clock=clock or VirtualClock(), random=SeededRandom(seed), threads=InlineThreads())
