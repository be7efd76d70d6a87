# SPDX-License-Identifier: Apache-2.0
"""Backups: whole, of one moment, and never half a file under a backup's name."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from minihs.store import backup as backup_module
from minihs.store.backup import backup
from minihs.store.database import Database, Tx
from minihs.store.errors import BackupFailed


def counts(path: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT count(*), (SELECT pos FROM stream) FROM items").fetchone()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return row[0], row[1]


def add(tx: Tx) -> None:
    tx.next_pos()
    tx.executemany("INSERT INTO items (text) VALUES (hex(randomblob(100)))", [()] * 20)


async def test_a_backup_of_a_busy_database_is_of_one_moment(db: Database, tmp_path: Path) -> None:
    for _ in range(50):
        await db.write(add)
    target = tmp_path / "copy.db"
    async with trio.open_nursery() as nursery:

        async def keep_writing() -> None:
            while True:
                await db.write(add)

        for _ in range(3):
            nursery.start_soon(keep_writing)
        for _ in range(3):
            before = db.read.execute("SELECT pos FROM stream").fetchall()[0][0]
            await trio.to_thread.run_sync(backup, db.path, target)
            rows, pos = counts(target)
            assert rows == 20 * pos
            assert before <= pos
        nursery.cancel_scope.cancel()


async def test_a_backup_replaces_an_older_one_and_is_private(db: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("older")
    await trio.to_thread.run_sync(backup, db.path, target)
    assert counts(target) == (0, 0)
    assert target.stat().st_mode & 0o077 == 0
    assert [name for name in os.listdir(tmp_path) if "copy" in name] == ["copy.db"]


async def test_a_backup_keeps_the_schema_version_and_owner(db: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    await trio.to_thread.run_sync(backup, db.path, target)
    with closing(sqlite3.connect(target)) as copy:
        for pragma in ("user_version", "application_id", "auto_vacuum", "page_size"):
            expected = db.read.execute(f"PRAGMA {pragma}").fetchall()
            assert copy.execute(f"PRAGMA {pragma}").fetchall() == expected


async def test_a_copy_that_fails_its_check_never_gets_the_name(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        await db.write(add)
    target = tmp_path / "copy.db"
    target.write_text("older")
    copy = backup_module._copy

    def copy_badly(database: Path, partial: Path) -> None:
        copy(database, partial)
        with partial.open("r+b") as file:
            file.seek(partial.stat().st_size - 3 * 4096)
            file.write(b"\xff" * 3 * 4096)

    monkeypatch.setattr(backup_module, "_copy", copy_badly)
    with pytest.raises(BackupFailed):
        backup(db.path, target)
    assert target.read_text() == "older"
    assert not target.with_name("copy.db.partial").exists()


async def test_a_target_that_can_not_be_written_is_an_error(db: Database, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="cannot write"):
        backup(db.path, tmp_path / "nowhere" / "copy.db")
    with pytest.raises(BackupFailed):
        backup(tmp_path / "missing.db", tmp_path / "copy.db")


async def test_what_a_killed_backup_left_is_no_obstacle(db: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.with_name("copy.db.partial").write_text("half")
    backup(db.path, target)
    assert counts(target) == (0, 0)
