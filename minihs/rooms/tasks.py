# SPDX-License-Identifier: Apache-2.0
"""One task per room with work; it alone changes that room.

Whoever wants a room changed hands in a job and waits for its result. The job runs in the room's own task, a
child of the server's nursery: a caller that is cancelled (its client hung up) leaves, the job goes on to
its end.

A job that has to ask other servers does so `aside`: while it waits, jobs that may come between (what our own
users do) are done, so that a server that answers slowly, or never, does not keep anybody from talking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from minihs.matrix.errors import MatrixError

log = structlog.get_logger()


class _Job:
    __slots__ = ("between", "call", "done", "error", "result", "waited_for")

    def __init__(self, call: Callable[[], Awaitable[Any]], between: bool) -> None:
        self.call = call
        self.between = between
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = None
        self.waited_for = True

    def finish(self, *, result: Any = None, error: Exception | None = None) -> None:
        self.result, self.error = result, error
        self.done.set()


class _Queue:
    """The jobs of one room that wait."""

    __slots__ = ("aside", "jobs", "news")

    def __init__(self) -> None:
        self.jobs: deque[_Job] = deque()
        self.aside = False
        """The job that runs waits for other servers."""
        self.news = trio.Event()

    def next_between(self) -> _Job | None:
        for job in self.jobs:
            if job.between:
                self.jobs.remove(job)
                return job
        return None


class RoomTasks:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        # A room is in there exactly while its task runs.
        self._queues: dict[str, _Queue] = {}

    async def run[T](self, room_id: str, call: Callable[[], Awaitable[T]], *, between: bool = False) -> T:
        """Have `call()` run alone in its room, after what was handed in earlier; return or raise what it
        does.

        `between`: it may also run while an earlier job waits for other servers, and asks none itself.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = self._enqueue(room_id, call, between)
        try:
            await job.done.wait()
        finally:
            job.waited_for = False
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def start(self, room_id: str, call: Callable[[], Awaitable[Any]]) -> None:
        """The same, without waiting; a failure is logged."""
        self._enqueue(room_id, call, between=False).waited_for = False

    async def aside[T](self, room_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """For the job that runs in this room: wait for `call()`, which does not touch the room, and let other
        jobs come between. Whatever the job knew of the room may have changed after it.
        """
        queue = self._queues.get(room_id)
        if queue is None or queue.aside:
            return await call()
        asked = _Job(call, between=False)
        queue.aside = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, asked, queue)
                while not asked.done.is_set():
                    job = queue.next_between()
                    if job is not None:
                        await self._do(room_id, job)
                    else:
                        queue.news = trio.Event()
                        await queue.news.wait()
        finally:
            queue.aside = False
        if asked.error is not None:
            raise asked.error
        result: T = asked.result
        return result

    async def _ask(self, asked: _Job, queue: _Queue) -> None:
        try:
            asked.finish(result=await asked.call())
        except Exception as error:  # noqa: BLE001 - raised by `aside`
            asked.finish(error=error)
        queue.news.set()

    def is_busy(self, room_id: str) -> bool:
        return room_id in self._queues

    def any_busy(self) -> bool:
        return bool(self._queues)

    def _enqueue(self, room_id: str, call: Callable[[], Awaitable[Any]], between: bool) -> _Job:
        job = _Job(call, between)
        queue = self._queues.get(room_id)
        if queue is None:
            queue = self._queues[room_id] = _Queue()
            self._nursery.start_soon(self._work, room_id, queue, name=f"room {room_id}")
        queue.jobs.append(job)
        queue.news.set()
        return job

    async def _work(self, room_id: str, queue: _Queue) -> None:
        try:
            while queue.jobs:
                await self._do(room_id, queue.jobs.popleft())
        finally:
            del self._queues[room_id]
            for left in queue.jobs:
                left.finish(error=_stopping())

    async def _do(self, room_id: str, job: _Job) -> None:
        try:
            job.finish(result=await job.call())
        except Exception as error:  # the boundary of a room: one job's failure is its caller's
            if not job.waited_for and not isinstance(error, MatrixError):
                log.error("a job in a room failed", room=room_id, exc_info=error)
            job.finish(error=error)
        finally:
            if not job.done.is_set():
                job.finish(error=_stopping())


def _stopping() -> MatrixError:
    return MatrixError(503, "M_UNKNOWN", "The server is stopping.")
