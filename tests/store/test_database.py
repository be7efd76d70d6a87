# SPDX-License-Identifier: Apache-2.0
"""The database as its users see it: group commits, cancellation, wake-ups, reads, opening and closing."""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from minihs.runtime import InlineThreads, Runtime
from minihs.store import database as database_module
from minihs.store.database import Database, Reader, Tx
from minihs.store.errors import DatabaseInUse, StoreError, WriterStopped
from tests.store.conftest import with_items


def add(tx: Tx, item: int) -> int:
    tx.execute("INSERT INTO items (item) VALUES (?)", (item,))
    return item


def items(db: Reader) -> list[int]:
    return [row[0] for row in db.execute("SELECT item FROM items ORDER BY item").fetchall()]


class Gate:
    """Holds the writer's thread inside a closure until it is opened."""

    def __init__(self, db: Database, nursery: trio.Nursery) -> None:
        self._db = db
        self._nursery = nursery
        self._entered, self._open = threading.Event(), threading.Event()

    async def __aenter__(self) -> None:
        def wait(_tx: Tx) -> None:
            self._entered.set()
            self._open.wait(10)

        self._nursery.start_soon(self._db.write, wait)
        await trio.to_thread.run_sync(self._entered.wait, 10)

    async def __aexit__(self, *_exc: object) -> None:
        self._open.set()


async def test_a_write_is_seen_by_readers_when_it_returns(either_db: Database) -> None:
    assert await either_db.write(lambda tx: add(tx, 1)) == 1
    assert items(either_db.read) == [1]
    assert await either_db.scan(items) == [1]


async def test_a_failing_closure_raises_its_error_and_leaves_nothing(either_db: Database) -> None:
    def fail(tx: Tx) -> None:
        add(tx, 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await either_db.write(fail)
    assert items(either_db.read) == []


async def test_writes_that_wait_together_share_one_commit(db: Database) -> None:
    commits: list[frozenset[str]] = []
    db.on_commit(commits.append)

    async def write(item: int) -> None:
        def closure(tx: Tx) -> None:
            add(tx, item)
            tx.wake(f"room:{item}")

        await db.write(closure)

    async with trio.open_nursery() as nursery, Gate(db, nursery):
        for item in range(20):
            nursery.start_soon(write, item)
        await trio.testing.wait_all_tasks_blocked()
    assert items(db.read) == list(range(20))
    assert commits == [frozenset(f"room:{item}" for item in range(20))]


async def test_a_failing_neighbour_in_the_same_commit_takes_nobody_along(db: Database) -> None:
    outcomes: dict[int, object] = {}

    async def write(item: int) -> None:
        def closure(tx: Tx) -> int:
            tx.wake(f"room:{item}")
            add(tx, item)
            if item % 3 == 0:
                tx.execute("INSERT INTO items (item) VALUES (?)", (item,))  # UNIQUE fails
            return item

        try:
            outcomes[item] = await db.write(closure)
        except sqlite3.IntegrityError:
            outcomes[item] = "refused"

    keys: list[frozenset[str]] = []
    db.on_commit(keys.append)
    async with trio.open_nursery() as nursery, Gate(db, nursery):
        for item in range(9):
            nursery.start_soon(write, item)
        await trio.testing.wait_all_tasks_blocked()
    good = [item for item in range(9) if item % 3]
    assert outcomes == {item: item if item % 3 else "refused" for item in range(9)}
    assert items(db.read) == good
    assert keys == [frozenset(f"room:{item}" for item in good)]


async def test_subscribers_hear_of_a_commit_before_its_writers_go_on(either_db: Database) -> None:
    order: list[str] = []

    def heard(keys: frozenset[str]) -> None:
        assert items(either_db.read) == [1]
        order.append(f"heard {sorted(keys)}")

    either_db.on_commit(heard)

    def closure(tx: Tx) -> None:
        add(tx, 1)
        tx.wake("room:!a", "user:@b")
        tx.wake("room:!a")

    await either_db.write(closure)
    order.append("returned")
    assert order == ["heard ['room:!a', 'user:@b']", "returned"]


async def test_a_commit_that_wakes_nobody_calls_nobody(either_db: Database) -> None:
    either_db.on_commit(lambda _keys: pytest.fail("called"))
    await either_db.write(lambda tx: add(tx, 1))


async def test_who_remembers_what_is_not_there_hears_of_every_commit(either_db: Database) -> None:
    seen: list[list[int]] = []
    either_db.on_every_commit(lambda: seen.append(items(either_db.read)))
    await either_db.write(lambda tx: add(tx, 1))
    await either_db.write(lambda tx: add(tx, 2))
    assert seen == [[1], [1, 2]]


async def test_positions_rise_by_one_and_skip_nothing_that_failed(either_db: Database) -> None:
    def failing(tx: Tx) -> None:
        tx.next_pos()
        raise KeyError

    assert await either_db.write(lambda tx: [tx.next_pos(), tx.next_pos()]) == [1, 2]
    with pytest.raises(KeyError):
        await either_db.write(failing)
    assert await either_db.write(lambda tx: tx.next_pos()) == 3


async def test_an_already_cancelled_caller_writes_nothing(either_db: Database) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await either_db.write(lambda tx: add(tx, 1))
    assert scope.cancelled_caught
    assert items(either_db.read) == []


async def test_a_write_whose_caller_is_cancelled_is_carried_out_whole(db: Database) -> None:
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def write() -> None:
            with scope:
                await db.write(lambda tx: [add(tx, item) for item in range(3)])

        async with Gate(db, nursery):
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert scope.cancelled_caught
            assert items(db.read) == []
    await db.write(lambda tx: add(tx, 3))
    assert items(db.read) == [0, 1, 2, 3]


async def test_inline_a_caller_may_be_cancelled_though_its_write_is_done(tmp_path: Path) -> None:
    """As with the thread; so tests that cancel at each checkpoint meet this case."""
    runtime = Runtime(threads=InlineThreads())
    async with Database.open(tmp_path / "test.db", runtime, inline=True, migrations=with_items()) as db:
        with trio.CancelScope() as scope:
            db.on_commit(lambda _keys: scope.cancel())

            def closure(tx: Tx) -> None:
                add(tx, 1)
                tx.wake("room:!a")

            await db.write(closure)
        assert scope.cancelled_caught
        assert items(db.read) == [1]


async def test_a_full_queue_makes_the_next_caller_wait_for_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_QUEUED", 3)
    async with Database.open(tmp_path / "test.db", Runtime(), migrations=with_items()) as db:
        done: list[int] = []

        async def write(item: int) -> None:
            done.append(await db.write(lambda tx: add(tx, item)))

        async with trio.open_nursery() as nursery, Gate(db, nursery):  # has one of the three places
            for item in range(10):
                nursery.start_soon(write, item)
            await trio.testing.wait_all_tasks_blocked()
            assert db._slots.statistics().tasks_waiting == 8
        assert sorted(done) == items(db.read) == list(range(10))
        assert db._slots.value == 3


async def test_a_caller_cancelled_while_it_waits_for_a_place_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_QUEUED", 1)
    async with Database.open(tmp_path / "test.db", Runtime(), migrations=with_items()) as db:
        async with trio.open_nursery() as nursery, Gate(db, nursery):
            with trio.move_on_after(0.01) as scope:
                await db.write(lambda tx: add(tx, 1))
            assert scope.cancelled_caught
        await db.write(lambda tx: add(tx, 2))
        assert items(db.read) == [2]


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    go_on = threading.Event()

    async def open_the_gate() -> None:
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()

    async with (
        trio.open_nursery() as nursery,
        Database.open(path, Runtime(), migrations=with_items()) as db,
    ):
        nursery.start_soon(db.write, lambda _tx: go_on.wait(10))
        for item in range(5):
            nursery.start_soon(db.write, partial(add, item=item))
        await trio.testing.wait_all_tasks_blocked()
        assert items(db.read) == []
        nursery.start_soon(open_the_gate)
    async with Database.open(path, Runtime(), migrations=with_items()) as db:
        assert items(db.read) == [0, 1, 2, 3, 4]
    assert not path.with_name("test.db-wal").exists()


async def test_a_closed_database_takes_no_writes(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "test.db", Runtime(), migrations=with_items()) as db:
        pass
    with pytest.raises(StoreError, match="closed"):
        await db.write(lambda tx: add(tx, 1))
    with pytest.raises(StoreError, match="closed"):
        await db.scan(items)


async def test_the_reader_can_not_write(either_db: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        either_db.read.execute("INSERT INTO items (item) VALUES (1)")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await either_db.scan(lambda db: db.execute("DELETE FROM items").fetchall())


async def test_a_closure_can_not_read_through_the_reader(either_db: Database) -> None:
    with pytest.raises((RuntimeError, sqlite3.ProgrammingError)):
        await either_db.write(lambda tx: (add(tx, 1), items(either_db.read)))
    assert items(either_db.read) == []


async def test_a_read_on_the_loop_that_takes_too_long_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "READ_BUDGET", 100_000)
    endless = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000) SELECT sum(i) FROM n"
    )
    async with Database.open(tmp_path / "test.db", Runtime(), migrations=with_items()) as db:
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            db.read.execute(endless).fetchall()
        assert items(db.read) == []  # the budget is per statement
        assert await db.scan(lambda reader: reader.execute(endless).fetchall()) == [(1250025000,)]


async def test_a_glance_that_takes_too_long_becomes_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "READ_BUDGET", 100_000)
    readers: list[Reader] = []

    def count(reader: Reader, most: int) -> int:
        readers.append(reader)
        counting = (
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT max(i) FROM n"
        )
        return int(reader.execute(counting, (most,)).fetchone()[0])

    def give_up(reader: Reader) -> int:
        raise database_module.TooLong

    async with Database.open(tmp_path / "test.db", Runtime(), migrations=with_items()) as db:
        assert await db.glance(lambda reader: count(reader, 10)) == 10
        assert readers == [db.read]
        assert await db.glance(lambda reader: count(reader, 50_000)) == 50_000
        assert readers[:2] == [db.read] * 2
        assert readers[2] is not db.read
        assert await db.glance(give_up, lambda reader: count(reader, 20)) == 20
        assert readers[3] is not db.read
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await db.glance(lambda reader: reader.execute("SELECT 1 FROM nowhere"))
        assert items(db.read) == []


async def test_a_scan_sees_one_state_of_the_database(db: Database) -> None:
    await db.write(lambda tx: add(tx, 1))
    started, go_on = threading.Event(), threading.Event()

    def scan(reader: Reader) -> tuple[list[int], list[int]]:
        before = items(reader)
        started.set()
        go_on.wait(10)
        return before, items(reader)

    seen: list[tuple[list[int], list[int]]] = []

    async def run() -> None:
        seen.append(await db.scan(scan))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.to_thread.run_sync(started.wait, 10)
        await db.write(lambda tx: add(tx, 2))
        go_on.set()
    assert seen == [([1], [1])]
    assert await db.scan(items) == [1, 2]


async def test_a_failed_scan_leaves_its_connection_usable(either_db: Database) -> None:
    def fail(reader: Reader) -> None:
        items(reader)
        raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            await either_db.scan(fail)
    assert await either_db.scan(items) == []


async def test_the_same_database_can_not_be_opened_twice(either_db: Database) -> None:
    with pytest.raises(DatabaseInUse, match=r"in use by another minihs \(process \d+\)"):
        async with Database.open(either_db.path, Runtime()):
            pass


async def test_a_missing_folder_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="must exist and be writable"):
        async with Database.open(tmp_path / "nowhere" / "test.db", Runtime()):
            pass


async def test_nobody_else_may_read_the_database(either_db: Database) -> None:
    await either_db.write(lambda tx: add(tx, 1))
    for name in ("test.db", "test.db-wal", "test.db-shm", "test.db.lock"):
        assert either_db.path.with_name(name).stat().st_mode & 0o077 == 0, name


async def test_a_failing_subscriber_stops_the_database_loudly(tmp_path: Path) -> None:
    def broken(_keys: frozenset[str]) -> None:
        raise ZeroDivisionError

    async def serve() -> None:
        async with Database.open(tmp_path / "test.db", Runtime(), migrations=with_items()) as db:
            db.on_commit(broken)
            await db.write(lambda tx: tx.wake("room:!a"))
            await trio.sleep_forever()

    with pytest.raises(WriterStopped) as caught:
        await serve()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_the_body_keeps_its_own_exceptions(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with Database.open(tmp_path / "test.db", Runtime()):
            raise KeyError


async def test_space_of_deleted_rows_can_be_given_back(either_db: Database) -> None:
    def fill(tx: Tx) -> None:
        tx.executemany("INSERT INTO items (text) VALUES (?)", [(f"{n:01000}",) for n in range(2000)])

    await either_db.write(fill)
    await either_db.write(lambda tx: tx.execute("DELETE FROM items").rowcount)
    pages = either_db.read.execute("PRAGMA page_count").fetchall()[0][0]
    assert await either_db.reclaim(100) > 0
    assert await either_db.reclaim(10_000) == 0
    assert either_db.read.execute("PRAGMA page_count").fetchall()[0][0] < pages - 400


async def test_the_log_is_copied_into_the_database_as_it_grows(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_PAGES", 50)

    def fill(tx: Tx, start: int) -> None:
        rows = [(n, f"{n:0500}") for n in range(start, start + 100)]
        tx.executemany("INSERT INTO items (item, text) VALUES (?, ?)", rows)

    for start in range(0, 4000, 100):
        await db.write(partial(fill, start=start))
    size = db.path.with_name("test.db-wal").stat().st_size
    assert size < 2 << 20  # all of it is more than 4 MiB
    assert db.path.stat().st_size > 2 << 20


async def test_many_writers_lose_nothing(db: Database) -> None:
    async def write(start: int) -> None:
        for item in range(start, start + 25):
            assert await db.write(partial(add, item=item)) == item

    async with trio.open_nursery() as nursery:
        for start in range(0, 500, 25):
            nursery.start_soon(write, start)
    assert items(db.read) == list(range(500))
