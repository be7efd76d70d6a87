# SPDX-License-Identifier: Apache-2.0
"""Bringing the schema up to date, and refusing what can't be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from minihs.store import migrations as migrations_module
from minihs.store.errors import BackupFailed, DatabaseDamaged, MigrationFailed, NewerSchema, StoreError
from minihs.store.migrations import Migration, backup_path, open_for_writing, schema_version, shipped

ONE = Migration(1, "one", "CREATE TABLE a (x INTEGER PRIMARY KEY); INSERT INTO a VALUES (1);")
TWO = Migration(2, "two", "CREATE TABLE b (y INTEGER REFERENCES a (x)); INSERT INTO b SELECT x FROM a")
THREE = Migration(3, "three", "-- a comment\nINSERT INTO a VALUES (3)\n-- and no semicolon at the end")
BROKEN = Migration(2, "broken", "CREATE TABLE b (y); INSERT INTO nowhere VALUES (1);")


def migrate(path: Path, *steps: Migration) -> None:
    open_for_writing(path, list(steps)).close()


def read(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


def test_the_shipped_migrations_are_applied_to_a_new_database(path: Path) -> None:
    with closing(open_for_writing(path, shipped())) as connection:
        assert schema_version(connection) == shipped()[-1].number
        assert connection.execute("SELECT pos FROM stream").fetchone() == (0,)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_the_shipped_migrations_have_different_numbers_and_end_no_transaction() -> None:
    numbers = [migration.number for migration in shipped()]
    assert numbers[0] == 1
    assert len(set(numbers)) == len(numbers)
    for migration in shipped():
        lines = [line.split("--")[0].strip().upper() for line in migration.sql.splitlines()]
        assert not [
            line for line in lines if line.startswith(("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA", "END;"))
        ]
        assert (
            "DEFERRABLE" not in migration.sql.upper()
        )  # such a constraint would fail at COMMIT, for everybody


def test_the_database_is_durable_and_checks_foreign_keys(path: Path) -> None:
    with closing(open_for_writing(path, shipped())) as connection:
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "page_size",
                "auto_vacuum",
                "mmap_size",
            )
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "page_size": 4096,
        "auto_vacuum": 2,
        "mmap_size": 0,
    }


def test_only_what_is_missing_is_applied(path: Path) -> None:
    migrate(path, ONE)
    migrate(path, ONE, TWO, THREE)
    migrate(path, ONE, TWO, THREE)
    assert read(path, "SELECT x FROM a") == [(1,), (3,)]
    assert read(path, "SELECT y FROM b") == [(1,)]
    assert read(path, "PRAGMA user_version") == [(3,)]


def test_a_backup_is_made_before_an_existing_database_changes(path: Path) -> None:
    migrate(path, ONE)
    assert not backup_path(path, 1).exists()
    migrate(path, ONE, TWO)
    kept = backup_path(path, 1)
    assert read(kept, "SELECT name FROM sqlite_schema") == [("a",)]
    assert read(kept, "PRAGMA user_version") == [(1,)]
    assert kept.stat().st_mode & 0o077 == 0


def test_without_room_for_the_backup_nothing_is_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_database: Path, _target: Path) -> None:
        raise BackupFailed("database or disk is full")

    migrate(path, ONE)
    monkeypatch.setattr(migrations_module, "backup", no_space)
    with pytest.raises(MigrationFailed, match=r"disk is full.*Nothing was changed"):
        migrate(path, ONE, TWO)
    assert read(path, "PRAGMA user_version") == [(1,)]


def test_a_failing_migration_leaves_the_database_as_before_that_step(path: Path) -> None:
    migrate(path, ONE)
    with pytest.raises(MigrationFailed, match=r"0002 \(broken\).*no such table: nowhere"):
        migrate(path, ONE, BROKEN, THREE)
    assert read(path, "SELECT name FROM sqlite_schema") == [("a",)]
    assert read(path, "PRAGMA user_version") == [(1,)]
    migrate(path, ONE, TWO, THREE)
    assert read(path, "PRAGMA user_version") == [(3,)]


def test_a_migration_that_leaves_dangling_references_is_refused(path: Path) -> None:
    migrate(path, ONE, TWO)
    with pytest.raises(DatabaseDamaged, match="a row of b refers to a missing one of a"):
        migrate(path, ONE, TWO, Migration(3, "dangling", "DELETE FROM a;"))


def test_a_newer_schema_is_refused(path: Path) -> None:
    migrate(path, ONE, TWO)
    with pytest.raises(
        NewerSchema, match=r"has schema 2, but this minihs knows only 1\. Start the newer"
    ) as caught:
        migrate(path, ONE)
    assert "restore" not in str(caught.value)  # there is no backup of schema 1
    assert read(path, "SELECT y FROM b") == [(1,)]


def test_a_newer_schema_is_refused_with_the_command_that_goes_back(path: Path) -> None:
    migrate(path, ONE)
    migrate(path, ONE, TWO)
    with pytest.raises(NewerSchema) as caught:
        migrate(path, ONE)
    assert f"minihs restore {backup_path(path, 1)}" in str(caught.value)


def test_a_start_that_was_killed_in_a_migration_is_taken_up_by_the_next(path: Path) -> None:
    """The process dies inside of the second step, after its tables were made and before its COMMIT."""
    migrate(path, ONE)
    program = f"""
import os, sqlite3
from pathlib import Path
from minihs.store import migrations
real = sqlite3.connect
def connect(*args, **kwargs):
    connection = real(*args, **kwargs)
    connection.create_function("die", 0, lambda: os.kill(os.getpid(), 9))
    return connection
sqlite3.connect = connect
migrations.open_for_writing(Path({str(path)!r}), [
    migrations.Migration(1, "one", ""),
    migrations.Migration(2, "two", {TWO.sql!r}),
    migrations.Migration(3, "three", "INSERT INTO a VALUES (3); CREATE TABLE c (z); SELECT die();"),
])
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -9
    assert read(path, "PRAGMA user_version") == [(2,)]
    assert read(path, "SELECT x FROM a") == [(1,)]
    migrate(path, ONE, TWO, THREE)
    assert read(path, "SELECT x FROM a") == [(1,), (3,)]
    assert read(path, "PRAGMA user_version") == [(3,)]


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(DatabaseDamaged, match="not one of minihs"):
        migrate(path, ONE)
    assert read(path, "SELECT name FROM sqlite_schema") == [("theirs",)]


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"hello, I am a text file " * 1000)
    with pytest.raises(DatabaseDamaged, match="minihs restore"):
        migrate(path, ONE)


def test_a_damaged_database_is_found_after_an_unclean_end(path: Path) -> None:
    rows = Migration(
        2,
        "rows",
        "CREATE TABLE r (n INTEGER PRIMARY KEY, t TEXT); CREATE INDEX i ON r (t);"
        "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 5000)"
        " INSERT INTO r SELECT n, hex(randomblob(100)) FROM c",
    )
    migrate(path, ONE, rows)
    whole = path.read_bytes()
    pages = len(whole) // 4096
    for page in range(pages // 2, pages // 2 + 20):
        with path.open("r+b") as file:
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    migrate(path, ONE, rows)  # the last end was clean: nobody looks
    leave_a_log(path)
    with pytest.raises(DatabaseDamaged, match="is damaged"):
        migrate(path, ONE, rows)


def test_an_unclean_end_of_a_sound_database_is_no_trouble(path: Path) -> None:
    migrate(path, ONE)
    leave_a_log(path)
    migrate(path, ONE)
    assert read(path, "SELECT x FROM a") == [(1,), (99,)]


def leave_a_log(path: Path) -> None:
    """Write a row and leave without closing, as a killed process does."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("INSERT INTO a VALUES (99)")
    connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    connection.close()
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def test_a_folder_that_is_not_there_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Is the folder there"):
        migrate(tmp_path / "nowhere" / "test.db", ONE)


def test_an_ordinary_start_does_not_load_sqlite_utils(path: Path) -> None:
    """It costs 0.2 s and 10 MiB, which only a change of the schema has to pay."""
    migrate(path, *shipped())
    program = f"""
import sys
from pathlib import Path
from minihs.store.migrations import open_for_writing, shipped
open_for_writing(Path({str(path)!r}), shipped()).close()
assert "sqlite_utils" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
