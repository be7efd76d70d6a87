# SPDX-License-Identifier: Apache-2.0
"""One task per room with work; it alone changes that room.

Whoever wants a room changed hands in a job and waits for its result. The job runs in the room's own task, a
child of the server's nursery: a caller that is cancelled (its client hung up) leaves, the job goes on to
its end. What can be done in one go, as messages that wait for the same room can be written by one commit, is.
If the room is idle, such a job is done by its caller's task instead, which can't be cancelled meanwhile: most
messages need no second task.

A job that has to ask other servers does so `aside`: while it waits, jobs that may come between (what our own
users do) are done, so that a server that answers slowly, or never, does not keep anybody from talking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
import trio

from minihs.matrix.errors import MatrixError

log = structlog.get_logger()

MAX_TOGETHER = 20
"""Jobs done in one go."""

type Together[W, T] = Callable[[Sequence[W]], Awaitable[Sequence[T | Exception]]]


class _Job:
    __slots__ = ("between", "call", "done", "error", "result", "shares", "waited_for", "wish")

    def __init__(
        self,
        call: Callable[..., Awaitable[Any]],
        between: bool,
        wish: Any = None,
        shares: Callable[[], bool] = lambda: True,
    ) -> None:
        self.call = call
        self.between = between
        self.wish = wish
        """None: `call` takes nothing. Else a list of wishes, and returns what becomes of each."""
        self.shares = shares
        self.done = trio.Event()
        self.result: Any = None
        self.error: Exception | None = None
        self.waited_for = True

    def finish(self, *, result: Any = None, error: Exception | None = None) -> None:
        self.result, self.error = result, error
        self.done.set()

    def outcome(self) -> Any:
        """Of a job that is done; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self.result


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

    def take_alike(self, job: _Job) -> list[_Job]:
        """Those right behind the job that can be done in one go with it."""
        alike: list[_Job] = []
        while self.jobs and len(alike) < MAX_TOGETHER - 1:
            following = self.jobs[0]
            if following.wish is None or following.call != job.call or not (alike or job.shares()):
                break
            alike.append(self.jobs.popleft())
        return alike


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
        return await self._wait_for(room_id, _Job(call, between))

    async def run_together[W, T](
        self,
        room_id: str,
        together: Together[W, T],
        wish: W,
        *,
        shares: Callable[[], bool] = lambda: True,
        between: bool = False,
    ) -> T:
        """The same for a job that can be done in one go with others of its kind: those that wait one behind
        the other are one call of `together` with all their wishes. It returns for each its result, or what
        its caller is to see raised. If it raises anything itself, it is called again with each wish alone.

        `shares`: whether that is of use now; else each is done by itself, and its caller waits for no other.
        """
        return await self._wait_for(room_id, _Job(together, between, wish, shares))

    async def run_if_idle[T](self, room_id: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Have `call()` run alone in its room, in this very task; None if somebody else has the room. It may
        wait for the disk and its turn, but for no other server: it can't be cancelled meanwhile."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if room_id in self._queues:
            return None
        job = _Job(call, between=False)
        await self._do_here(room_id, job)
        result: T = job.outcome()
        return result

    async def _wait_for[T](self, room_id: str, job: _Job) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if room_id not in self._queues and job.wish is not None and job.shares():
            await self._do_here(room_id, job)
        else:
            await self._do_there(room_id, job)
        result: T = job.outcome()
        return result

    async def _do_here(self, room_id: str, job: _Job) -> None:
        """Nobody else has the room, and the job asks no other server: to its end it is done in its caller's
        task, at less than another task would cost."""
        queue = self._queues[room_id] = _Queue()
        try:
            with trio.CancelScope(shield=True):  # bounded: such a job waits for nothing but the disk
                await self._do(room_id, queue, job)
        finally:
            self._go_on(room_id, queue)

    async def _do_there(self, room_id: str, job: _Job) -> None:
        self._enqueue(room_id, job)
        try:
            await job.done.wait()
        finally:
            job.waited_for = False

    def start(self, room_id: str, call: Callable[[], Awaitable[Any]]) -> None:
        """The same, without waiting; a failure is logged."""
        job = _Job(call, between=False)
        job.waited_for = False
        self._enqueue(room_id, job)

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
                        await self._do(room_id, queue, job)
                    else:
                        queue.news = trio.Event()
                        await queue.news.wait()
        finally:
            queue.aside = False
        result: T = asked.outcome()
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

    def _enqueue(self, room_id: str, job: _Job) -> None:
        queue = self._queues.get(room_id)
        if queue is None:
            queue = self._queues[room_id] = _Queue()
            self._nursery.start_soon(self._work, room_id, queue, name=f"room {room_id}")
        queue.jobs.append(job)
        queue.news.set()

    def _go_on(self, room_id: str, queue: _Queue) -> None:
        """What came meanwhile is done in the room's own task."""
        if queue.jobs:
            self._nursery.start_soon(self._work, room_id, queue, name=f"room {room_id}")
        else:
            del self._queues[room_id]

    async def _work(self, room_id: str, queue: _Queue) -> None:
        try:
            while queue.jobs:
                await self._do(room_id, queue, queue.jobs.popleft())
        finally:
            del self._queues[room_id]
            for left in queue.jobs:
                left.finish(error=_stopping())

    async def _do(self, room_id: str, queue: _Queue, job: _Job) -> None:
        jobs = [job]
        try:
            jobs += queue.take_alike(job)
            if len(jobs) == 1 or not await self._do_together(room_id, jobs):
                for each in jobs:
                    await self._do_alone(room_id, each)
        except Exception as error:  # noqa: BLE001 - raised to the caller: nobody knows whether they share
            _finish(room_id, job, error)
        finally:
            for each in jobs:
                if not each.done.is_set():
                    each.finish(error=_stopping())

    async def _do_together(self, room_id: str, jobs: Sequence[_Job]) -> bool:
        """False: something failed, and whose fault that is only shows when each is done alone."""
        try:
            outcomes = await jobs[0].call([job.wish for job in jobs])
        except Exception as error:  # the boundary of several jobs: each may be good without the others
            log.warning("jobs in a room failed together", room=room_id, exc_info=error)
            return False
        for job, outcome in zip(jobs, outcomes, strict=True):
            _finish(room_id, job, outcome)
        return True

    async def _do_alone(self, room_id: str, job: _Job) -> None:
        try:
            if job.wish is None:
                job.finish(result=await job.call())
                return
            (outcome,) = await job.call([job.wish])
        except Exception as error:  # noqa: BLE001 - the boundary of a room: a job's failure is its caller's
            outcome = error
        _finish(room_id, job, outcome)


def _finish(room_id: str, job: _Job, outcome: Any) -> None:
    """Tell the caller; of a failure the log, if the caller is not there to hear of it."""
    if not isinstance(outcome, Exception):
        job.finish(result=outcome)
        return
    if not job.waited_for and not isinstance(outcome, MatrixError):
        log.error("a job in a room failed", room=room_id, exc_info=outcome)
    job.finish(error=outcome)


def _stopping() -> MatrixError:
    return MatrixError(503, "M_UNKNOWN", "The server is stopping.")
