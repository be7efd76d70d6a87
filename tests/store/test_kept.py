# SPDX-License-Identifier: Apache-2.0
"""What is kept in place of reading is never other than what a reading would give."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial as partial_call
from pathlib import Path

import pytest

from minihs.runtime import InlineThreads, Runtime
from minihs.store import (
    account_data,
    device_lists,
    kept,
    one_time_keys,
    partial,
    push_rules,
    receipts,
    sync_rooms,
    timeline,
    to_device,
)
from minihs.store.database import Database, Reader, Tx
from minihs.store.kept import Kept, Written
from minihs.store.migrations import open_for_writing, shipped
from minihs.store.reader import ReadConnection

ROOM, USER = 7, "@user:x"


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_for_writing(tmp_path / "test.db", shipped())) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        yield connection


@pytest.fixture
def reading(writing: sqlite3.Connection, tmp_path: Path) -> Iterator[ReadConnection]:
    written = Written(writing)
    path = tmp_path / "test.db"
    with closing(
        ReadConnection(path, budget=10**9, cache_kib=1024, state_cache=1 << 20, written=written)
    ) as reader:
        sync_rooms.current_pos(reader)
        yield reader


def upto(written: Written, kind: str, key: str | int) -> int:
    return int(written.notes[kind][hash(key) % kept.SLOTS])


def any_row(connection: sqlite3.Connection, table: str) -> dict[str, object]:
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    values: dict[str, object] = {"user_id": USER, "room_nid": ROOM}
    return {name: values.get(name, 1) for _, name, *_ in columns}


@pytest.mark.parametrize(("table", "kind", "column"), [each[:3] for each in kept._TABLES])
def test_whatever_is_done_to_a_row_is_noted(
    writing: sqlite3.Connection, table: str, kind: str, column: str | None
) -> None:
    written = Written(writing)
    row = any_row(writing, table)
    key = kept.ANY if column is None else row[column]
    assert isinstance(key, (str, int))
    if table == "to_device":  # one that is gone is nothing new
        statements = [f"INSERT INTO {table} VALUES (?, ?, ?, ?)", f"UPDATE {table} SET user_id = user_id"]
    else:
        marks = ", ".join("?" * len(row))
        touched = "arrival" if table == "events" else next(iter(row))
        statements = [
            f"INSERT INTO {table} VALUES ({marks})",
            f"UPDATE {table} SET {touched} = {touched}",
            f"DELETE FROM {table}",
        ]
    for statement in statements:
        writing.execute("UPDATE stream SET pos = pos + 10")
        pos = writing.execute("SELECT pos FROM stream").fetchone()[0]
        assert upto(written, kind, key) <= pos
        writing.execute(statement, list(row.values()) if statement.startswith("INSERT") else ())
        if table == "events" and statement.startswith(
            "INSERT"
        ):  # as each message does: only readers of it look
            continue
        assert upto(written, kind, key) == pos + 1


def test_both_keys_of_a_row_that_changes_hands_are_noted(writing: sqlite3.Connection) -> None:
    written = Written(writing)
    writing.execute("INSERT INTO push_rules VALUES ('@a:x', '{}', 1)")
    writing.execute("UPDATE stream SET pos = 50")
    writing.execute("UPDATE push_rules SET user_id = '@b:x'")
    assert [upto(written, kept.ACCOUNT_DATA, user) for user in ("@a:x", "@b:x")] == [51, 51]


def test_what_goes_with_something_else_is_noted(writing: sqlite3.Connection) -> None:
    writing.execute("PRAGMA foreign_keys = ON")
    written = Written(writing)
    writing.execute("INSERT INTO users (user_id, created_ts) VALUES (?, 0)", (USER,))
    writing.execute("INSERT INTO push_rules VALUES (?, '{}', 1)", (USER,))
    writing.execute("UPDATE stream SET pos = 50")
    writing.execute("DELETE FROM users")
    assert upto(written, kept.ACCOUNT_DATA, USER) == 51


def test_what_is_read_between_a_note_and_its_commit_is_not_kept(
    writing: sqlite3.Connection, reading: ReadConnection
) -> None:
    def put(pos: int) -> None:
        writing.execute("UPDATE stream SET pos = ?", (pos,))
        writing.execute("INSERT OR REPLACE INTO push_rules VALUES (?, '{}', ?)", (USER, pos))

    def read() -> int:
        sync_rooms.current_pos(reading)
        return push_rules.last_change(reading, USER)

    put(5)
    writing.execute("UPDATE stream SET pos = 6")
    assert (read(), read()) == (5, 5)
    writing.execute("BEGIN")
    put(7)
    assert (read(), read()) == (5, 5)
    writing.execute("COMMIT")
    assert read() == 7
    writing.execute("BEGIN")  # nothing gets a new position here
    writing.execute("UPDATE push_rules SET pos = 70")
    assert read() == 7
    writing.execute("COMMIT")
    assert read() == 70


def test_after_a_start_everything_is_read_once(writing: sqlite3.Connection, tmp_path: Path) -> None:
    writing.execute("UPDATE stream SET pos = 5")
    writing.execute("INSERT INTO push_rules VALUES (?, '{}', 5)", (USER,))
    written = Written(writing)
    path = tmp_path / "test.db"
    with closing(
        ReadConnection(path, budget=10**9, cache_kib=1024, state_cache=1 << 20, written=written)
    ) as reader:
        assert not kept.is_unwritten(reader, kept.ACCOUNT_DATA, USER, 5)
        assert account_data.changed(reader, USER, 4, 5) != []


def test_answers_that_are_kept_have_an_end(writing: sqlite3.Connection, reading: ReadConnection) -> None:
    assert reading.kept is not None
    most = kept.KEPT_BYTES // kept.ANSWER_BYTES
    writing.execute("UPDATE stream SET pos = 1")
    sync_rooms.current_pos(reading)
    for number in range(most):
        reading.kept.put(kept.ACCOUNT_DATA, f"@{number}:x", "count", number)
    first = reading.kept.get(kept.ACCOUNT_DATA, "@0:x", "count")
    assert first is not None
    assert (first.value, reading.kept.size) == (0, most * kept.ANSWER_BYTES)
    reading.kept.put(kept.ACCOUNT_DATA, "@0:x", "count", 5)  # in the place of the other
    assert reading.kept.size == most * kept.ANSWER_BYTES
    reading.kept.put(kept.ACCOUNT_DATA, USER, "count", 7)
    assert reading.kept.get(kept.ACCOUNT_DATA, "@0:x", "count") is None
    last = reading.kept.get(kept.ACCOUNT_DATA, USER, "count")
    assert last is not None
    assert (last.value, reading.kept.size) == (7, kept.ANSWER_BYTES)
    reading.kept.put(kept.ACCOUNT_DATA, USER, "long", range(kept.KEPT_BYTES // kept.ITEM_BYTES))
    assert (reading.kept.get(kept.ACCOUNT_DATA, USER, "long"), reading.kept.size) == (None, 0)


def test_what_was_read_in_many_threads_counts_for_as_many(
    writing: sqlite3.Connection, reading: ReadConnection
) -> None:
    """(One user may have receipts in a thousand threads of each room.)"""
    writing.execute(
        "INSERT INTO events (event_nid, room_nid, type, sender, depth, ts, received_ts, outcome, outlier, "
        "auth_nids, topo, arrival) VALUES (1, ?, 't', 's', 1, 1, 1, 0, 0, '', 1, 1)",
        (ROOM,),
    )
    writing.execute("INSERT INTO event_ids VALUES (1, '$e')")
    rows = [(ROOM, USER, f"$thread{number}") for number in range(500)]
    writing.executemany("INSERT INTO receipts VALUES (?, ?, 'm.read', ?, '$e', 1, 1)", rows)
    assert len(receipts.read_upto(reading, ROOM, USER)) == 500
    assert reading.kept is not None
    assert reading.kept.size == kept.ANSWER_BYTES + 500 * kept.ITEM_BYTES


def test_there_are_so_many_notes_and_no_more(writing: sqlite3.Connection) -> None:
    written = Written(writing)
    writing.execute("BEGIN")
    for number in range(2 * kept.SLOTS):
        writing.execute("INSERT INTO receipts VALUES (?, ?, 'm.read', '', '$e', 1, 1)", (number, USER))
    assert {len(notes) for notes in written.notes.values()} == {kept.SLOTS}


READS: dict[str, Callable[[Reader, int, int], object]] = {
    "account data": lambda db, since, upto: account_data.changed(db, USER, since, upto),
    "ignored": lambda db, since, upto: account_data.ignored_users(db, USER),
    "rules": lambda db, since, upto: push_rules.last_change(db, USER),
    "changes": lambda db, since, upto: sync_rooms.changes_between(db, USER, since, upto),
    "spans": lambda db, since, upto: sync_rooms.spans(db, USER, ROOM),
    "to-device": lambda db, since, upto: to_device.read(db, USER, "D", since, upto),
    "keys": lambda db, since, upto: one_time_keys.counts(db, USER, "D"),
    "fallback": lambda db, since, upto: one_time_keys.unused_fallback_types(db, USER, "D"),
    "receipts": lambda db, since, upto: receipts.changed(db, ROOM, since, upto, 10),
    "read": lambda db, since, upto: receipts.read_upto(db, ROOM, USER),
    "gaps": lambda db, since, upto: timeline.gaps(db, ROOM),
    "state": lambda db, since, upto: timeline.state_and_its_pos(db, ROOM, upto),
    "earlier state": lambda db, since, upto: timeline.state_and_its_pos(db, ROOM, since),
    "lists": lambda db, since, upto: sorted(device_lists.changed_among_contacts(db, USER, since, upto)),
    "partial": lambda db, since, upto: partial.since(db, since),
}

WRITES = (
    "INSERT OR REPLACE INTO account_data VALUES (:user, '', 'm.ignored_user_list', "
    "'{\"ignored_users\":{\"@' || :pos || ':x\":{}}}', :pos)",
    "DELETE FROM account_data",
    "INSERT OR REPLACE INTO push_rules VALUES (:user, '{}', :pos)",
    "INSERT INTO membership_log VALUES (:user, :pos, :room, 'join', 1)",
    "INSERT INTO to_device VALUES (:pos, :user, 'D', '{}')",
    "DELETE FROM to_device",
    "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, json, digest) "
    "VALUES (:user, 'D', 'a', :pos, '', '')",
    "DELETE FROM one_time_keys WHERE seq = (SELECT MAX(seq) FROM one_time_keys)",
    "INSERT OR REPLACE INTO fallback_keys VALUES (:user, 'D', 'a', 'k', '', :pos % 2)",
    "INSERT OR REPLACE INTO receipts VALUES (:room, :user, 'm.read', '', '$' || (:pos % 6), 1, :pos)",
    "INSERT OR IGNORE INTO events (event_nid, room_nid, type, sender, depth, ts, received_ts, outcome, "
    "outlier, auth_nids, topo, arrival) VALUES (:pos % 5 + 1, :room, 't', 's', 1, 1, 1, 0, 0, '', 1, :pos)",
    "UPDATE events SET topo = 1, arrival = :pos WHERE event_nid = :pos % 5 + 1",
    "UPDATE events SET topo = NULL, arrival = NULL",
    "DELETE FROM events",
    "INSERT OR REPLACE INTO backward_extremities VALUES (:room, 1, :pos)",
    "DELETE FROM backward_extremities",
    "INSERT INTO room_states VALUES (:room, :pos, :pos)",
    "UPDATE room_states SET group_nid = group_nid + 1000",
    "INSERT OR REPLACE INTO device_list_changes VALUES (:user, :pos)",
    "INSERT OR REPLACE INTO partial_joins (room_nid, event_nid, host, joined_pos) "
    "VALUES (:room, 1, '', :pos)",
    "UPDATE partial_joins SET completed_pos = :pos",
)


def all_of(db: Reader, since: int, upto: int) -> dict[str, object]:
    return {name: read(db, since, upto) for name, read in READS.items()}


@pytest.mark.parametrize("seed", range(5))
async def test_the_loop_reads_what_others_read(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with Database.open(
        tmp_path / "test.db", Runtime(threads=InlineThreads()), inline=True, synchronous="OFF"
    ) as db:

        def begin(tx: Tx) -> None:
            tx.execute("INSERT INTO rooms (room_nid, room_id) VALUES (?, '!r:x')", (ROOM,))
            tx.execute("INSERT INTO users (user_id, created_ts) VALUES (?, 0)", (USER,))
            tx.execute("INSERT INTO devices (user_id, device_id, created_ts) VALUES (?, 'D', 0)", (USER,))
            for number in range(5):
                tx.execute("INSERT INTO event_ids VALUES (?, ?)", (number + 1, f"${number}"))

        await db.write(begin)
        positions, spared = [0], 0
        for _ in range(300):
            if dice.random() < 0.6:
                statement = dice.choice(WRITES)

                def write(tx: Tx, statement: str = statement) -> None:
                    pos = tx.next_pos()
                    values = {"pos": pos, "user": USER, "room": ROOM}
                    names = {name: value for name, value in values.items() if f":{name}" in statement}
                    tx.execute(statement, names)

                await db.write(write)
            elif dice.random() < 0.7:
                await db.write(lambda tx: tx.next_pos())
            upto = await db.glance(sync_rooms.current_pos)
            since = dice.choice(positions[-3:])
            positions.append(upto)
            read = partial_call(all_of, since=since, upto=upto)
            assert await db.glance(read) == await db.scan(read), (since, upto)
            kept_here = db.read.kept
            assert isinstance(kept_here, Kept)
            spared += sum(
                kept_here.is_unwritten(kind, key, since)
                for kind, key in (
                    (kept.ACCOUNT_DATA, USER),
                    (kept.RECEIPTS, ROOM),
                    (kept.DEVICE_LISTS, kept.ANY),
                )
            )
        assert spared > 100
