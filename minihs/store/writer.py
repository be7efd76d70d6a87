# SPDX-License-Identifier: Apache-2.0
"""The one connection that writes: batches of closures, one COMMIT (and one fsync) per batch.

Each closure runs in a savepoint of its own, so one that fails leaves its neighbours whole. What a batch may
meet:

1. A closure raises: its savepoint is rolled back, it alone gets the error.
2. A closure loses the whole transaction (disk full, `OR ROLLBACK`): the batch is run again, a transaction for
   each closure. Therefore closures must be re-runnable and have no effects outside of the database.
3. COMMIT says "disk full": the frames of the WAL were not all written, so the batch is certainly not
   committed; it fails, and the writer goes on.
4. COMMIT fails otherwise (an fsync that returned EIO): *unknown*. All connections see the old state, yet the
   transaction may be back after a crash. CommitUnknown is raised and the writer must not be used again.

An authorizer keeps closures from ending the batch's transaction behind its back. It asks when a statement is
prepared, so the writer's own statements carry a comment: a closure that says COMMIT must not be handed the
prepared statement of the writer.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import trio

from minihs.matrix.event import Event
from minihs.store.kept import Written
from minihs.store.reader import Parameters
from minihs.store.watch import watch

_BEGIN = "BEGIN IMMEDIATE /* writer */"
_COMMIT = "COMMIT /* writer */"
_ROLLBACK = "ROLLBACK /* writer */"
_SAVE = "SAVEPOINT closure /* writer */"
_UNDO = "ROLLBACK TO closure /* writer */"
_RELEASE = "RELEASE closure /* writer */"

_READING_PRAGMAS = frozenset(
    ["data_version", "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo"]
)
"""What libraries and SQLite's own virtual tables ask; others could outlive the closure or fail the COMMIT."""


_NEXT_POSITIONS = "UPDATE stream SET pos = pos + ? WHERE id = 1 RETURNING pos"

MAX_REMEMBERED = 1_000
"""Event numbers that a closure remembers. Beyond, it forgets them all and looks them up anew."""


class CommitUnknown(Exception):
    """A COMMIT failed, and only a restart can tell whether it did."""


class Tx:
    """What a write closure gets. Valid until the closure returns."""

    __slots__ = ("_connection", "_keys", "event_nids", "events")

    kept = None
    """A closure reads what is there, always (`Reader.kept`)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._keys: set[str] = set()
        self.event_nids: dict[str, int] = {}
        """Numbers of events that this closure has looked up, for `ids.intern_event`."""
        self.events: dict[int, Event | None] = {}
        """By number, those whose JSON is new: `Database.on_events` hands them out after the COMMIT. None: it
        is another than it was."""

    def remember(self, event_id: str, nid: int) -> None:
        if len(self.event_nids) >= MAX_REMEMBERED:
            self.event_nids.clear()
        self.event_nids[event_id] = nid

    def execute(self, sql: str, parameters: Parameters = (), /) -> sqlite3.Cursor:
        connection = self._open()
        try:
            return connection.execute(sql, parameters)
        except sqlite3.Error:
            self._check_alive(connection)
            raise

    def executemany(self, sql: str, rows: Iterable[Parameters], /) -> sqlite3.Cursor:
        connection = self._open()
        try:
            return connection.executemany(sql, rows)
        except sqlite3.Error:
            self._check_alive(connection)
            raise

    def next_pos(self) -> int:
        """The next position of the one stream of changes. Commits happen in the order of positions."""
        return self.next_positions(1)[0]

    def next_positions(self, count: int) -> range:
        """The next ones, as many as that."""
        row = self._open().execute(_NEXT_POSITIONS, (count,)).fetchall()[0]
        return range(int(row[0]) - count + 1, int(row[0]) + 1)

    def wake(self, *keys: str) -> None:
        """Once the COMMIT is on disk, subscribers (`Database.on_commit`) are told these keys."""
        self._keys.update(keys)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("a transaction was used after its end")
        return self._connection

    def _check_alive(self, connection: sqlite3.Connection) -> None:
        """After an error that ended the transaction, further statements would each commit by themselves."""
        if not connection.in_transaction:
            self._connection = None


class Job:
    """One closure, its outcome, and the task that waits for it (None: nobody, or it was cancelled)."""

    __slots__ = ("error", "events", "function", "keys", "maintenance", "result", "task")

    def __init__(self, function: Callable[[Tx], Any], maintenance: str | None = None) -> None:
        self.function = function
        self.maintenance = maintenance
        """Instead of `function`: a statement that can't be in a transaction."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.keys: set[str] = set()
        self.events: dict[int, Event | None] = {}
        self.task: trio.lowlevel.Task | None = None

    def fail(self, error: BaseException) -> None:
        self.result, self.error, self.keys, self.events = None, error, set(), {}


class BatchWriter:
    """Runs batches on the writing connection. For one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, *, rehearse: bool = False) -> None:
        """With `rehearse` each closure is run, undone and run again: tests find those that can't be."""
        self._connection = connection
        self._rehearse = rehearse
        self._in_closure = False
        self._keys: set[str] = set()
        """What the closure under way has woken without knowing."""
        watch(connection, self._keys.add)
        self.written = Written(connection)
        connection.set_authorizer(self._authorize)

    @property
    def changes(self) -> int:
        """Rows written since the connection was opened."""
        return self._connection.total_changes

    def run(self, batch: Sequence[Job]) -> None:
        """Commit `batch`. Every job has its outcome afterwards; CommitUnknown, and all have failed."""
        try:
            together = [job for job in batch if job.maintenance is None]
            if together and not self._together(together):
                for job in together:
                    self._together([job])
            for job in batch:
                if job.maintenance is not None:
                    self._maintain(job, job.maintenance)
        except CommitUnknown as error:
            for job in batch:
                job.fail(error)
            raise

    def checkpoint(self) -> tuple[int, int]:
        """Copy the WAL into the database as far as readers allow: pages in the WAL, pages copied."""
        _, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE) /* writer */").fetchall()[
            0
        ]
        return pages, copied

    def close(self, *, leave_wal: bool = False) -> None:
        """Close the connection; normally that copies the WAL into the database and removes it.

        After an unknown COMMIT the WAL stays as it is: nothing more is written to a disk that just failed,
        and the next start sees that the end was not clean.
        """
        self._connection.set_authorizer(None)
        if leave_wal:
            self._connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        self._connection.close()

    def _together(self, batch: Sequence[Job]) -> bool:
        """One transaction for all of `batch`. False: it was lost, and there were others in it to be run
        again.
        """
        connection = self._connection
        try:
            connection.execute(_BEGIN)
        except sqlite3.Error as error:  # nothing was begun, so this is known to have failed
            for job in batch:
                job.fail(error)
            return True
        for job in batch:
            if not self._savepoint(job):
                return len(batch) == 1
        try:
            connection.execute(_COMMIT)
        except sqlite3.Error as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise CommitUnknown(f"COMMIT failed: {error}") from error
            if connection.in_transaction:
                connection.execute(_ROLLBACK)
            for job in batch:
                job.fail(error)
        return True

    def _maintain(self, job: Job, statement: str) -> None:
        try:
            job.result, job.error = self._connection.execute(statement).fetchall(), None
        except sqlite3.Error as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                raise CommitUnknown(f"{statement} failed: {error}") from error
            job.fail(error)

    def _savepoint(self, job: Job) -> bool:
        """Run one closure; its error, if any, is its own. False: the transaction is lost."""
        connection = self._connection
        connection.execute(_SAVE)
        self._call(job)
        if self._rehearse and job.error is None and connection.in_transaction:
            connection.execute(_UNDO)
            self._call(job)
        if not connection.in_transaction:
            if job.error is None:  # a closure that swallowed the error that ended its transaction
                job.fail(sqlite3.OperationalError("the closure lost its transaction"))
            return False
        return self._end_savepoint(job)

    def _call(self, job: Job) -> None:
        transaction = Tx(self._connection)
        self._keys.clear()
        self._in_closure = True
        try:
            job.result, job.error = job.function(transaction), None
            if isinstance(job.result, sqlite3.Cursor):  # unfinished, it would hold the savepoint open
                job.result.close()
                job.result = None
        except BaseException as error:  # noqa: BLE001 - kept for the task that asked, which raises it
            job.fail(error)
        else:
            job.keys, job.events = transaction._keys | self._keys, transaction.events
        finally:
            self._in_closure = False
            transaction._connection = None

    def _end_savepoint(self, job: Job) -> bool:
        connection = self._connection
        try:
            if job.error is not None:
                traceback.clear_frames(job.error.__traceback__)  # their cursors would hold the savepoint open
                connection.execute(_UNDO)
            connection.execute(_RELEASE)
        except sqlite3.Error as error:
            # An unfinished writing cursor (RETURNING, not fetched to the end) escaped from the closure.
            if job.error is None:
                job.fail(error)
            if connection.in_transaction:
                connection.execute(_ROLLBACK)
            return False
        return True

    def _authorize(
        self, action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None
    ) -> int:
        if not self._in_closure:
            return sqlite3.SQLITE_OK
        if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_SAVEPOINT and second == "closure":
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_PRAGMA and first not in _READING_PRAGMAS:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK
