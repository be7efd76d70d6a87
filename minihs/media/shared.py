# SPDX-License-Identifier: Apache-2.0
"""Work that several requests want at once and that is done once.

It runs in the server's nursery, so that it outlives a client that hangs up, and what it has cost is not lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import structlog
import trio

from minihs.matrix.errors import MatrixError

log = structlog.get_logger(__name__)


class _Job:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: Any = None
        self.error: MatrixError | None = MatrixError(503, "M_UNKNOWN", "The server is shutting down.")


class SharedJobs:
    """Mutable state: the jobs under way, by their key; on the loop only."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._running: dict[Hashable, _Job] = {}

    def __len__(self) -> int:
        return len(self._running)

    async def result[T](self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns or the MatrixError that it raises, be it started here or by somebody before."""
        job = self._running.get(key)
        if job is None:
            job = self._running[key] = _Job()
            self._nursery.start_soon(self._run, key, job, work)
        await job.done.wait()
        if job.error is not None:
            # A new one for each who waits: raised in several tasks, one would mix up their tracebacks.
            error = job.error
            raise MatrixError(error.status, error.errcode, error.message, **error.extra) from error
        result: T = job.result
        return result

    async def _run(self, key: Hashable, job: _Job, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            job.result = await work()
            job.error = None
        except MatrixError as error:
            job.error = error
        except Exception:  # a bug ends this job, not the server
            log.exception("a media job failed", key=str(key)[:200])
            job.error = MatrixError(500, "M_UNKNOWN", "Internal server error.")
        finally:
            del self._running[key]
            job.done.set()
