# SPDX-License-Identifier: Apache-2.0
"""What the crash tests write, and how they find out whether anything was lost or torn.

Each of some tasks writes entries 1, 2, 3, ... and keeps the number of the last one in a table of its own, in
the same closure. So whatever was killed when: a task's entries have no hole, their count is the number kept
beside them, and it is no less than what was acknowledged.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from minihs.store.database import Reader, Tx
from minihs.store.migrations import Migration

MIGRATIONS = [
    Migration(
        1,
        "ledger",
        """
        CREATE TABLE stream (id INTEGER PRIMARY KEY, pos INTEGER NOT NULL);
        INSERT INTO stream VALUES (1, 0);
        CREATE TABLE lasts (task INTEGER PRIMARY KEY, last INTEGER NOT NULL);
        CREATE TABLE entries (task INTEGER, number INTEGER, padding BLOB, PRIMARY KEY (task, number));
        """,
    )
]


def last(db: Reader, task: int) -> int:
    row = db.execute("SELECT last FROM lasts WHERE task = ?", (task,)).fetchone()
    return 0 if row is None else int(row[0])


def enter(tx: Tx, task: int, number: int, padding: int) -> None:
    """Entry first, number second: a torn closure would show."""
    tx.execute("INSERT INTO entries VALUES (?, ?, randomblob(?))", (task, number, padding))
    tx.next_pos()
    tx.execute(
        "INSERT INTO lasts VALUES (?, ?) ON CONFLICT (task) DO UPDATE SET last = excluded.last",
        (task, number),
    )


def inspect(path: Path, acknowledged: dict[int, int]) -> list[str]:
    """What is wrong with the database, looked at in a copy: the files stay as the crash left them."""
    wrong: list[str] = []
    with closing(sqlite3.connect(copy_of(path))) as db:
        wrong += [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
        lasts = dict(db.execute("SELECT task, last FROM lasts").fetchall())
        for task, count, highest in db.execute(
            "SELECT task, count(*), max(number) FROM entries GROUP BY task"
        ):
            if not count == highest == lasts.get(task):
                wrong.append(f"task {task}: {count} entries up to {highest}, but {lasts.get(task)} noted")
        for task, number in acknowledged.items():
            if lasts.get(task, 0) < number:
                wrong.append(f"task {task}: {number} was acknowledged, {lasts.get(task, 0)} is there")
    return wrong


def entries_of_copy(path: Path) -> set[tuple[int, int]]:
    """All (task, number), after a check that the copy is sound."""
    with closing(sqlite3.connect(copy_of(path))) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return set(db.execute("SELECT task, number FROM entries").fetchall())


def copy_of(path: Path) -> Path:
    folder = path.with_name("copy")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            shutil.copyfile(path.with_name(path.name + suffix), folder / (path.name + suffix))
    return folder / path.name
