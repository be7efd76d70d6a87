# SPDX-License-Identifier: Apache-2.0
"""What closures may and may not do to the batch they are part of."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minihs.store.migrations import open_for_writing, tools
from minihs.store.writer import BatchWriter, CommitUnknown, Job, Tx
from tests.store.conftest import with_items


class Failing:
    """A connection whose COMMIT fails with a given code."""

    def __init__(self, connection: sqlite3.Connection, code: int) -> None:
        self._connection = connection
        self._code = code
        self.armed = True

    def execute(self, sql: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if self.armed and sql.startswith("COMMIT"):
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(sql, parameters)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_for_writing(tmp_path / "test.db", with_items())
    yield opened
    opened.close()


@pytest.fixture
def writer(connection: sqlite3.Connection) -> BatchWriter:
    return BatchWriter(connection)


def items(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT item FROM items ORDER BY item").fetchall()]


def add(item: int) -> Job:
    return Job(lambda tx: tx.execute("INSERT INTO items (item) VALUES (?)", (item,)).rowcount)


def run(writer: BatchWriter, *closures: Callable[[Tx], object] | Job) -> list[Job]:
    batch = [each if isinstance(each, Job) else Job(each) for each in closures]
    writer.run(batch)
    return batch


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "commit",
        "END",
        "ROLLBACK",
        "BEGIN",
        "COMMIT /* writer */ ",
        "RELEASE closure",
        "ROLLBACK TO closure",
        "SAVEPOINT closure",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA defer_foreign_keys = ON",
        "PRAGMA synchronous = OFF",
        "PRAGMA wal_checkpoint",
        "ATTACH ':memory:' AS other",
        "DETACH main",
    ],
)
def test_a_closure_can_not_touch_the_transaction_of_the_batch(
    writer: BatchWriter, connection: sqlite3.Connection, statement: str
) -> None:
    def closure(tx: Tx) -> None:
        tx.execute("INSERT INTO items (item) VALUES (2)")
        tx.execute(statement)

    before, bad, after = run(writer, add(1), closure, add(3))
    assert before.error is None
    assert after.error is None
    assert isinstance(bad.error, sqlite3.DatabaseError)
    assert "not authorized" in str(bad.error)
    assert items(connection) == [1, 3]


@pytest.mark.parametrize(
    "end",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.rollback(),
        lambda connection: connection.executescript("SELECT 1"),
        lambda connection: connection.__exit__(None, None, None),
    ],
)
def test_nor_through_the_connection_behind_a_cursor(
    writer: BatchWriter, connection: sqlite3.Connection, end: Callable[[sqlite3.Connection], object]
) -> None:
    def closure(tx: Tx) -> None:
        end(tx.execute("INSERT INTO items (item) VALUES (2)").connection)

    before, bad, after = run(writer, add(1), closure, add(3))
    assert isinstance(bad.error, sqlite3.DatabaseError)
    assert before.error is after.error is None
    assert items(connection) == [1, 3]


def test_sqlite_utils_works_inside_a_closure(writer: BatchWriter, connection: sqlite3.Connection) -> None:
    def closure(tx: Tx) -> None:
        table = tools(tx.execute("SELECT 1").connection).table("items")
        table.insert_all([{"item": 2}, {"item": 3}])
        table.upsert({"item": 3, "text": "new"}, pk="item")

    jobs = run(writer, add(1), closure)
    assert [job.error for job in jobs] == [None, None]
    assert items(connection) == [1, 2, 3]


def test_a_closure_may_use_savepoints_of_its_own(writer: BatchWriter, connection: sqlite3.Connection) -> None:
    def closure(tx: Tx) -> None:
        tx.execute("SAVEPOINT mine")
        tx.execute("INSERT INTO items (item) VALUES (1)")
        tx.execute("ROLLBACK TO mine")
        tx.execute("RELEASE mine")
        tx.execute("INSERT INTO items (item) VALUES (2)")

    assert run(writer, closure)[0].error is None
    assert items(connection) == [2]


def test_a_closure_that_loses_the_transaction_loses_only_itself(
    writer: BatchWriter, connection: sqlite3.Connection
) -> None:
    runs: list[int] = []

    def counted(tx: Tx) -> int:
        runs.append(1)
        tx.wake("room:!a")
        return tx.execute("INSERT INTO items (item) VALUES (5)").rowcount

    def lose(tx: Tx) -> None:
        tx.execute("INSERT INTO items (item) VALUES (2)")
        tx.execute("INSERT OR ROLLBACK INTO items (item) VALUES (2)")

    jobs = run(writer, add(1), counted, lose, add(3))
    assert isinstance(jobs[2].error, sqlite3.IntegrityError)
    assert [job.error for job in jobs if job is not jobs[2]] == [None, None, None]
    assert items(connection) == [1, 3, 5]
    assert len(runs) == 2  # and so closures must be re-runnable
    assert jobs[1].keys == {"room:!a"}


def test_a_closure_that_hides_the_loss_of_its_transaction_writes_nothing_more(
    writer: BatchWriter, connection: sqlite3.Connection
) -> None:
    """After the loss each further statement would commit by itself."""

    def lose(tx: Tx) -> str:
        tx.execute("INSERT INTO items (item) VALUES (2)")
        try:
            tx.execute("INSERT OR ROLLBACK INTO items (item) VALUES (2)")
        except sqlite3.IntegrityError:
            tx.execute("INSERT INTO items (item) VALUES (9)")
        return "fine"

    bad, good = run(writer, lose, add(1))
    assert isinstance(bad.error, RuntimeError)
    assert good.error is None
    assert items(connection) == [1]


def test_a_closure_that_swallows_the_loss_is_told_so(
    writer: BatchWriter, connection: sqlite3.Connection
) -> None:
    def lose(tx: Tx) -> str:
        tx.execute("INSERT INTO items (item) VALUES (2)")
        try:
            tx.execute("INSERT OR ROLLBACK INTO items (item) VALUES (2)")
        except sqlite3.IntegrityError:
            return "fine"
        return "not reached"

    (bad,) = run(writer, lose)
    assert "lost its transaction" in str(bad.error)
    assert bad.result is None
    assert items(connection) == []


def test_a_cursor_that_is_returned_is_closed(writer: BatchWriter, connection: sqlite3.Connection) -> None:
    leak = Job(lambda tx: tx.execute("INSERT INTO items (item) VALUES (7), (8) RETURNING item"))
    first, returned, last = run(writer, add(1), leak, add(3))
    assert first.error is returned.error is last.error is None
    assert returned.result is None
    assert items(connection) == [1, 3, 7, 8]


def test_a_cursor_that_is_kept_fails_its_closure_and_is_noticed_at_once(
    writer: BatchWriter, connection: sqlite3.Connection
) -> None:
    """Nothing can be committed while it lives: better to stop than to fail each write from then on."""
    kept: list[sqlite3.Cursor] = []
    leak = Job(lambda tx: kept.append(tx.execute("INSERT INTO items (item) VALUES (7), (8) RETURNING item")))
    with pytest.raises(sqlite3.OperationalError, match="SQL statements in progress"):
        writer.run([leak, add(1)])
    assert isinstance(leak.error, sqlite3.OperationalError)
    assert items(connection) == []


def test_an_error_raised_over_an_unfinished_statement_leaves_the_others_whole(
    writer: BatchWriter, connection: sqlite3.Connection
) -> None:
    def fail(tx: Tx) -> None:
        cursor = tx.execute("INSERT INTO items (item) VALUES (7), (8) RETURNING item")
        cursor.fetchone()
        raise KeyError

    first, bad, last = run(writer, add(1), fail, add(3))
    assert isinstance(bad.error, KeyError)
    assert first.error is last.error is None
    assert items(connection) == [1, 3]


def test_a_transaction_can_not_be_used_after_its_closure(writer: BatchWriter) -> None:
    kept = run(writer, lambda tx: tx)[0].result
    with pytest.raises(RuntimeError, match="after its end"):
        kept.execute("SELECT 1")
    with pytest.raises(RuntimeError, match="after its end"):
        kept.next_pos()


def test_a_rehearsed_closure_runs_twice_and_counts_once(connection: sqlite3.Connection) -> None:
    effects: list[int] = []

    def closure(tx: Tx) -> int:
        effects.append(1)  # what a closure must not do, and a rehearsal shows
        tx.wake(f"run:{len(effects)}")
        tx.execute("INSERT INTO items (text) VALUES ('x')")
        return tx.next_pos()

    (job,) = run(BatchWriter(connection, rehearse=True), closure)
    assert (job.error, job.result, job.keys, len(effects)) == (None, 1, {"run:2"}, 2)
    assert items(connection) == [1]


def test_foreign_keys_are_enforced(writer: BatchWriter) -> None:
    (job,) = run(writer, lambda tx: tx.execute("INSERT INTO items (item, parent) VALUES (1, 2)").rowcount)
    assert isinstance(job.error, sqlite3.IntegrityError)


def test_a_failed_commit_is_unknown_and_fails_the_whole_batch(connection: sqlite3.Connection) -> None:
    failing = Failing(connection, sqlite3.SQLITE_IOERR_FSYNC)
    writer = BatchWriter(failing)  # type: ignore[arg-type]  # a stand-in
    jobs = [add(1), add(2)]
    with pytest.raises(CommitUnknown, match="injected"):
        writer.run(jobs)
    assert all(isinstance(job.error, CommitUnknown) for job in jobs)


def test_a_full_disk_at_commit_fails_the_batch_and_the_writer_goes_on(connection: sqlite3.Connection) -> None:
    failing = Failing(connection, sqlite3.SQLITE_FULL)
    writer = BatchWriter(failing)  # type: ignore[arg-type]  # a stand-in
    jobs = run(writer, add(1), add(2))
    assert [getattr(job.error, "sqlite_errorcode", None) for job in jobs] == [sqlite3.SQLITE_FULL] * 2
    failing.armed = False
    assert run(writer, add(3))[0].error is None
    assert items(connection) == [3]


def test_a_database_held_by_somebody_else_fails_the_batch_and_not_the_writer(
    tmp_path: Path, connection: sqlite3.Connection
) -> None:
    writer = BatchWriter(connection)
    connection.execute("PRAGMA busy_timeout = 20")
    shell = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    job = run(writer, add(1))[0]
    assert isinstance(job.error, sqlite3.OperationalError)
    assert job.error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    shell.execute("ROLLBACK")
    shell.close()
    assert run(writer, add(2))[0].error is None
    assert items(connection) == [2]


def test_a_reader_function_may_return_rows_of_a_pragma_that_only_reads(writer: BatchWriter) -> None:
    job = run(writer, lambda tx: [row[1] for row in tx.execute("PRAGMA table_info(items)").fetchall()])[0]
    assert job.result == ["item", "text", "parent"]
