# SPDX-License-Identifier: Apache-2.0
"""One task per room with work; it alone changes that room.

Whoever wants a room changed hands in a job and waits for its result. The job runs in the room's own task, a
child of the server's nursery: a caller that is cancelled (its client hung up) leaves, the job goes on to
its end.
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
    __slots__ = ("call", "done", "error", "result", "waited_for")

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self.call = call
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = None
        self.waited_for = True

    def finish(self, *, result: Any = None, error: Exception | None = None) -> None:
        self.result, self.error = result, error
        self.done.set()


class RoomTasks:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        # room id → jobs that wait. A key is there exactly while the room's task runs.
        self._queues: dict[str, deque[_Job]] = {}

    async def run[T](self, room_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """Have `call()` run alone in its room, after what was handed in earlier; return or raise what it
        does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = self._enqueue(room_id, call)
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
        self._enqueue(room_id, call).waited_for = False

    def is_busy(self, room_id: str) -> bool:
        return room_id in self._queues

    def any_busy(self) -> bool:
        return bool(self._queues)

    def _enqueue(self, room_id: str, call: Callable[[], Awaitable[Any]]) -> _Job:
        job = _Job(call)
        queue = self._queues.get(room_id)
        if queue is None:
            queue = self._queues[room_id] = deque()
            self._nursery.start_soon(self._work, room_id, queue, name=f"room {room_id}")
        queue.append(job)
        return job

    async def _work(self, room_id: str, queue: deque[_Job]) -> None:
        job: _Job | None = None
        try:
            while queue:
                job = queue.popleft()
                try:
                    job.finish(result=await job.call())
                except Exception as error:  # the boundary of a room: one job's failure is its caller's
                    if not job.waited_for and not isinstance(error, MatrixError):
                        log.error("a job in a room failed", room=room_id, exc_info=error)
                    job.finish(error=error)
        finally:
            del self._queues[room_id]
            stopping = MatrixError(503, "M_UNKNOWN", "The server is stopping.")
            for left in (job, *queue):
                if left is not None and not left.done.is_set():
                    left.finish(error=stopping)
