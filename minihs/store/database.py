# SPDX-License-Identifier: Apache-2.0
"""The database as the rest of the server sees it: direct reads, group-committed writes, and who is told of
them.

- `read` is used at once, on the loop: a point read costs 5 µs, a trip to a thread 80 to 180. Many reads that
  belong together are a `glance`.
- `write` hands a closure to the one writer. Closures that arrive while a COMMIT runs share the next one.
- `scan` is for long reads, on a thread's own connection.

Mutable state and who may touch it: the queue is shared; `BatchWriter` belongs to the writer's thread;
everything else here belongs to the loop.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import trio

from minihs.matrix.event import Event
from minihs.runtime import Runtime
from minihs.store.errors import StoreError, WriterStopped
from minihs.store.lock import lock
from minihs.store.migrations import Migration, open_for_writing, shipped
from minihs.store.reader import Parameters, ReadConnection, Reader
from minihs.store.writer import BatchWriter, Job, Tx

__all__ = ["Database", "Parameters", "Reader", "TooLong", "Tx"]

MAX_QUEUED = 4096
"""Writes that may wait for the writer; the next caller waits for a place."""

MAX_BATCH = 256
"""Closures in one commit; bounds how long the first of them waits for the others to run."""

CHECKPOINT_PAGES = 1000
"""Pages in the WAL (4 MiB) from which on it is copied into the database."""

READ_BUDGET = 5_000_000
"""Steps of SQLite's virtual machine that a read on the loop may take: some 50 ms on a PC, 300 ms on a small
board.
"""

SCAN_BUDGET = 2_000_000_000
"""The same for one statement of a scan."""

IDLE_SCANNERS = 2
"""Connections kept for the next scan."""

READER_CACHE_KIB = 4096
SCANNER_CACHE_KIB = 1024
STATE_CACHE_BYTES = 8 << 20
SCANNER_STATE_CACHE_BYTES = 1 << 20

type Callback = Callable[[frozenset[str]], None]


class TooLong(Exception):
    """There is more to read than the loop has time for. Only for `Database.glance` to hear."""


class Database:
    """Use `Database.open`."""

    def __init__(self, path: Path, runtime: Runtime, writer: BatchWriter, scope: trio.CancelScope) -> None:
        self.path = path
        self.read: Reader = ReadConnection(
            path,
            budget=READ_BUDGET,
            cache_kib=READER_CACHE_KIB,
            state_cache=STATE_CACHE_BYTES,
            written=writer.written,
        )
        self._runtime = runtime
        self._writer = writer
        self._scope = scope
        self._slots = trio.Semaphore(MAX_QUEUED)
        self._callbacks: list[Callback] = []
        self._witnesses: list[Callable[[], None]] = []
        self._event_readers: list[Callable[[Mapping[int, Event | None]], None]] = []
        self._scanners: list[ReadConnection] = []
        self._failure: BaseException | None = None
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path | str,
        runtime: Runtime,
        *,
        inline: bool = False,
        synchronous: str = "FULL",
        rehearse: bool = False,
        migrations: Sequence[Migration] | None = None,
    ) -> AsyncIterator[Database]:
        """Lock, migrate and open the database; on leaving, the writer finishes its queue and all is closed.

        When the outcome of a COMMIT is unknown, or the writer meets a bug, the body is cancelled and
        WriterStopped raised. `inline` runs closures on the loop instead of a thread, for tests under a
        virtual clock; such a database may also do without fsync (`synchronous="OFF"`). `rehearse` runs each
        closure twice, the first time in vain, to find those that are not re-runnable.
        """
        path = Path(path)
        steps = list(shipped() if migrations is None else migrations)
        with lock(path):
            connection = await runtime.threads.run(
                lambda: open_for_writing(path, steps, synchronous=synchronous)
            )
            scope = trio.CancelScope()
            kind = InlineDatabase if inline else ThreadedDatabase
            writer = BatchWriter(connection, rehearse=rehearse)
            try:
                database = kind(path, runtime, writer, scope)
            except BaseException:
                writer.close()
                raise
            try:
                with scope:
                    yield database
            finally:
                with trio.CancelScope(shield=True):  # bounded: nothing is added to the queue any more
                    await database._close()
            if database._failure is not None:
                raise _stopped(database._failure)

    async def write[T](self, function: Callable[[Tx], T]) -> T:
        """Run `function` in the next group commit; its result, or what it raised, after the fsync.

        `function` must be re-runnable, do no I/O, have no effects outside of the database, and return plain
        values, no cursors. Raising rolls back what it did and nothing else. If the caller is cancelled
        meanwhile, it is carried out all the same.
        """
        return cast("T", await self._perform(Job(function)))

    async def reclaim(self, pages: int = 1000) -> int:
        """Give up to `pages` free pages of the file back to the file system; how many are left."""
        await self._perform(Job(_nothing, f"PRAGMA incremental_vacuum({int(pages)})"))
        return int(self.read.execute("PRAGMA freelist_count").fetchall()[0][0])

    async def glance[T](
        self, function: Callable[[Reader], T], long: Callable[[Reader], T] | None = None
    ) -> T:
        """Run a short read of several statements on the loop, at once: they see one state of the database,
        and take its locks once instead of each for itself.

        If it is not short after all, since a statement goes beyond READ_BUDGET or `function` raises
        TooLong, the result is that of a scan with `long`, or else with `function` again.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # no more: a turn of the loop costs a tenth of a /sync
        try:
            return self._glance(function)
        except TooLong:
            pass
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
        return await self.scan(long or function)

    def _glance[T](self, function: Callable[[Reader], T]) -> T:
        reader = self.read
        reader.execute("BEGIN")
        try:
            return function(reader)
        finally:
            reader.execute("ROLLBACK")

    async def scan[T](self, function: Callable[[Reader], T]) -> T:
        """Run a long read on a thread's own connection, which sees one state of the database throughout."""
        self._check_open()
        return await self._runtime.threads.run(self._scan, function)

    def on_commit(self, callback: Callback) -> None:
        """Call `callback` on the loop with all woken keys of each commit, before its writers go on."""
        self._callbacks.append(callback)

    def on_every_commit(self, callback: Callable[[], None]) -> None:
        """The same for commits that wake nobody too: for who remembers what is *not* in the database."""
        self._witnesses.append(callback)

    def on_events(self, callback: Callable[[Mapping[int, Event | None]], None]) -> None:
        """Call `callback` with the events whose JSON a commit wrote, by number, before anybody is woken by
        it: who is will read them next. None: there was another JSON in its place."""
        self._event_readers.append(callback)

    async def _perform(self, job: Job) -> object:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()
        try:
            self._check_open()
            self._submit(job)
        except BaseException:
            self._slots.release()
            raise
        await self._wait(job)
        try:
            if job.error is not None:
                raise job.error
            return job.result
        finally:
            del job  # the error's traceback holds this frame: don't leave a cycle behind

    def _submit(self, job: Job) -> None:
        raise NotImplementedError

    async def _wait(self, job: Job) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._failure is not None:
            raise _stopped(self._failure)
        if self._closed:
            raise StoreError("the database is closed")

    def _deliver(self, batch: Sequence[Job]) -> None:
        """On the loop, after a commit: tell subscribers, then let the waiting tasks go on."""
        for witness in self._witnesses:
            witness()
        events = {nid: event for job in batch for nid, event in job.events.items()}
        if events:
            for take in self._event_readers:
                take(events)
        keys: frozenset[str] = frozenset().union(*(job.keys for job in batch))
        if keys:
            for callback in self._callbacks:
                try:
                    callback(keys)
                except Exception as error:  # noqa: BLE001 - kept, and raised by open(): a bug that must be loud
                    self._stop(error)
        for job in batch:
            self._slots.release()
            if job.task is not None:
                trio.lowlevel.reschedule(job.task)
                job.task = None

    def _stop(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._scope.cancel()

    def _scan[T](self, function: Callable[[Reader], T]) -> T:
        try:
            reader = self._scanners.pop()
        except IndexError:
            reader = self._new_scanner()
        try:
            reader.execute("BEGIN")
            try:
                return function(reader)
            finally:
                reader.execute("ROLLBACK")
        finally:
            if self._closed or len(self._scanners) >= IDLE_SCANNERS:
                reader.close()
            else:
                self._scanners.append(reader)

    def _new_scanner(self) -> ReadConnection:
        return ReadConnection(
            self.path,
            budget=SCAN_BUDGET,
            cache_kib=SCANNER_CACHE_KIB,
            state_cache=SCANNER_STATE_CACHE_BYTES,
            any_thread=True,
        )

    def _close_readers(self) -> None:
        self._closed = True
        cast("ReadConnection", self.read).close()
        while self._scanners:
            self._scanners.pop().close()


class InlineDatabase(Database):
    """Runs each closure at once on the loop, in a transaction of its own."""

    def _submit(self, job: Job) -> None:
        reader = cast("ReadConnection", self.read)
        reader.in_closure = True
        try:
            self._writer.run([job])
        except Exception as error:  # noqa: BLE001 - raised from open()
            self._stop(error)
            job.fail(_stopped(error))
        finally:
            reader.in_closure = False
        self._deliver([job])

    async def _wait(self, job: Job) -> None:
        # As with a thread, the caller may be cancelled though its write is done.
        await trio.lowlevel.checkpoint()

    async def _close(self) -> None:
        self._close_readers()
        self._writer.close(leave_wal=self._failure is not None)


class ThreadedDatabase(Database):
    """Hands closures to the writer's thread."""

    def __init__(self, path: Path, runtime: Runtime, writer: BatchWriter, scope: trio.CancelScope) -> None:
        super().__init__(path, runtime, writer, scope)
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._copied, self._pages_per_change = 0, 1.0  # the writer's thread's own
        # A daemon: an interpreter that dies without leaving open() must not wait for it.
        threading.Thread(target=self._work, name=f"writer of {path.name}", daemon=True).start()

    def _submit(self, job: Job) -> None:
        job.task = trio.lowlevel.current_task()
        self._queue.put(job)

    async def _wait(self, job: Job) -> None:
        def forget(_raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)

    async def _close(self) -> None:
        self._closed = True
        self._queue.put(None)
        await self._ended.wait()
        self._close_readers()
        self._writer.close(leave_wal=self._failure is not None)

    def _work(self) -> None:
        """The writer's thread. After a fatal error it only refuses, until it is told to end."""
        failure: BaseException | None = None
        while batch := self._take():
            if failure is None:
                failure = self._run(batch)
            if failure is not None:
                for job in batch:
                    job.fail(_stopped(failure))
            self._tell(self._deliver, batch)
            if failure is None:
                failure = self._checkpoint()
        self._tell(self._ended.set)

    def _run(self, batch: Sequence[Job]) -> BaseException | None:
        try:
            self._writer.run(batch)
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which raises it from open()
            self._tell(self._stop, error)
            return error
        return None

    def _checkpoint(self) -> BaseException | None:
        """Copy the WAL when it has grown; here, so that nobody waits for it but those who come later."""
        done = self._writer.changes - self._copied
        if done * self._pages_per_change < CHECKPOINT_PAGES:
            return None
        try:
            pages, _ = self._writer.checkpoint()
        except sqlite3.Error as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return None  # all is in the WAL; tried again after the next commit
            self._tell(self._stop, error)
            return error
        self._pages_per_change = min(max(pages / done, 0.1), 4.0)
        self._copied = self._writer.changes
        return None

    def _take(self) -> list[Job]:
        """What is queued now, at least one job; empty: the end."""
        first = self._queue.get()
        batch: list[Job] = []
        while first is not None:
            batch.append(first)
            if len(batch) == MAX_BATCH:
                return batch
            try:
                first = self._queue.get_nowait()
            except queue.Empty:
                return batch
        if batch:
            self._queue.put(None)  # the end comes after this last batch
        return batch

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            pass  # the loop ended without leaving open(); what was committed is committed


def _stopped(cause: BaseException) -> WriterStopped:
    """A new one for each who is told: an exception raised in several tasks would mix up their tracebacks."""
    error = WriterStopped(f"the database writer stopped: {cause}")
    error.__cause__ = cause
    return error


def _nothing(_tx: Tx) -> None:
    """What maintenance does inside of a transaction."""
