# SPDX-License-Identifier: Apache-2.0
"""One running server for all the cases of a test, and hypothesis beside it.

Hypothesis calls a plain function for each case; trio runs as its guest and stands still, its clock too, while
the next case is made up. So starting a server is paid for once in so many cases. After a case that fails the
next one gets a new server: what is left over would fail all that come after, and so lead the search for the
smallest one astray.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import trio
from hypothesis import HealthCheck, Phase, settings
from outcome import Outcome
from trio.testing import MockClock

from tests.fuzz.target import Target, targets

type Job = Callable[[Target], Awaitable[object]]

CASES_PER_SERVER = 400
"""What was let in makes a server slower."""
REAL_SECONDS = 120.0
"""Nothing to do for so long: everything waits for something that never comes."""
VIRTUAL_SECONDS = 7200.0


def fuzz(share: int = 10) -> Callable[[Any], Any]:
    """Decorates a test: it gets so many hundredths of the profile's examples."""
    examples = max(1, settings.default.max_examples * share // 100)
    return settings(
        max_examples=examples,
        # The arena is meant to outlive a case, and making up a whole transaction takes its time.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
        phases=set(Phase) - {Phase.explain},  # each case that fails costs a new server
    )


class Arena:
    """For the tests of a module, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.tally: Counter[str] = Counter()
        """Cases by test."""
        self.name = ""
        """Of the test that is run."""
        self._folder = folder
        self._servers = 0
        self._stage: _Stage | None = None
        self._left = 0

    def run(self, job: Job, *, cases: int = 1) -> None:
        """`await job(target)` and look whether all is well. `cases`: how many wrong things go in by it."""
        if self._stage is None or self._left <= 0:
            self.close()
            self._servers += 1
            self._left = CASES_PER_SERVER
            folder = self._folder / str(self._servers)
            folder.mkdir()
            self._stage = _Stage(folder)
        self._left -= max(cases, 1)
        self.tally[self.name] += cases

        async def checked(target: Target) -> None:
            with trio.fail_after(VIRTUAL_SECONDS):
                await target.begin()
                await job(target)
                await target.check()

        try:
            self._stage.do(checked)
        except BaseException:
            self.close(failed=True)
            raise

    def close(self, *, failed: bool = False) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.end(failed=failed)

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=error is not None)


class _Stage:
    """A trio run that only goes on while there is a job to do."""

    def __init__(self, folder: Path) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._send, self._jobs = trio.open_memory_channel[Job](1)
        self._ready = False
        self._error: BaseException | None = None
        self._end: Outcome[None] | None = None

        async def main() -> None:
            async with targets(folder) as target:
                self._ready = True
                async for job in self._jobs:
                    try:
                        await job(target)
                    except Exception as error:  # noqa: BLE001 - raised by `do`
                        self._error = error
                    self._ready = True

        def ended(outcome: Outcome[None]) -> None:
            self._end = outcome

        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=self._calls.put,
            done_callback=ended,
            clock=MockClock(autojump_threshold=0),
            host_uses_signal_set_wakeup_fd=True,
        )
        self._go_on()

    def _go_on(self) -> None:
        while not self._ready and self._end is None:
            try:
                call = self._calls.get(timeout=REAL_SECONDS)
            except queue.Empty:
                raise AssertionError("the server hangs") from None
            call()
        if self._end is not None and not self._ready:
            self._end.unwrap()
            raise AssertionError("the server has ended")

    def do(self, job: Job) -> None:
        self._ready, self._error = False, None
        self._send.send_nowait(job)
        self._go_on()
        if self._error is not None:
            raise self._error

    def end(self, *, failed: bool) -> None:
        """Stop the server. What that brings to light is only of interest if nothing else has failed."""
        if self._end is None:
            self._ready = False
            self._send.close()
            while self._end is None:
                self._calls.get(timeout=REAL_SECONDS)()
            if not failed:
                self._end.unwrap()
