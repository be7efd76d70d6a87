# SPDX-License-Identifier: Apache-2.0
"""Opening the database for writing: pragmas, checks, and bringing its schema up to date.

The schema is the sum of `schema/NNNN_name.sql`, applied in order; `PRAGMA user_version` holds the number of
the last one applied. Each file is one transaction together with its number, so a start that was killed
half-way goes on with the first file that is missing. Before an existing database is changed, a backup of it
is written beside it.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from minihs.store.backup import backup
from minihs.store.errors import BackupFailed, DatabaseDamaged, MigrationFailed, NewerSchema, StoreError
from minihs.store.reader import CACHED_STATEMENTS

if TYPE_CHECKING:
    import sqlite_utils

APPLICATION_ID = 0x6D686873
"""Marks the file as ours ("mhhs"), for `file` and against opening somebody else's database."""

BUSY_SECONDS = 10.0
"""How long the writer waits when an operator's shell holds the database."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str


def shipped() -> list[Migration]:
    """The migrations of this version, in order."""
    found = []
    for entry in resources.files("minihs.store").joinpath("schema").iterdir():
        number, _, name = entry.name.removesuffix(".sql").partition("_")
        if entry.name.endswith(".sql") and number.isdecimal():
            found.append(Migration(int(number), name, entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def tools(connection: sqlite3.Connection) -> sqlite_utils.Database:
    """sqlite-utils on `connection`. Imported here: it takes 0.2 s and 10 MiB that an ordinary start need not
    pay.
    """
    import sqlite_utils

    return sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)


def open_for_writing(
    path: Path, migrations: list[Migration], *, synchronous: str = "FULL", cache_kib: int = 4096
) -> sqlite3.Connection:
    """The writing connection, with the schema up to date. The caller holds the lock of the database."""
    unclean = _has_wal(path)
    try:
        # Readable by nobody else: it holds keys and tokens. SQLite's other files take over the permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            timeout=BUSY_SECONDS,
            cached_statements=CACHED_STATEMENTS,
            check_same_thread=False,
        )
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot open {path}: {error}. Is the folder there, and writable?") from error
    try:
        _configure(connection, synchronous, cache_kib)
        _check_owner(connection, path)
        if unclean:
            check(connection, path)
        migrate(connection, path, migrations)
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        connection.close()
        if error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise _damaged(path, str(error)) from error
        raise StoreError(f"cannot open {path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, path: Path, migrations: list[Migration]) -> None:
    """Apply what is missing; refuse a database from a later version."""
    version = schema_version(connection)
    newest = max((migration.number for migration in migrations), default=0)
    if version > newest:
        raise NewerSchema(_newer(path, version, newest))
    missing = [migration for migration in migrations if migration.number > version]
    if not missing:
        return
    if version > 0:
        try:
            backup(path, backup_path(path, version))
        except BackupFailed as error:
            raise MigrationFailed(
                f"the schema of {path} must be brought from {version} to {newest}, but the backup before it "
                f"failed: {error}. Nothing was changed. Free some space and start again."
            ) from error
    connection.execute("PRAGMA foreign_keys = OFF")  # a migration may rebuild tables; checked below
    for migration in missing:
        _apply(connection, path, migration)
    if version > 0 and (broken := connection.execute("PRAGMA foreign_key_check").fetchone()):
        raise DatabaseDamaged(
            f"after migrating {path}, a row of {broken[0]} refers to a missing one of {broken[2]}"
        )


def schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def backup_path(path: Path, version: int) -> Path:
    """Where the backup made before leaving schema `version` is."""
    return path.with_name(f"{path.name}.schema-{version}.backup")


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage, after an end that was not clean."""
    found = [row[0] for row in connection.execute("PRAGMA quick_check(5)").fetchall()]
    if found != ["ok"]:
        raise _damaged(path, "; ".join(found))


def _apply(connection: sqlite3.Connection, path: Path, migration: Migration) -> None:
    # sqlite3's executescript first commits whatever is open, so the transaction is part of the script.
    script = f"BEGIN IMMEDIATE;\n{migration.sql}\n;PRAGMA user_version = {migration.number};\nCOMMIT;"
    try:
        tools(connection).conn.executescript(script)
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise MigrationFailed(
            f"migration {migration.number:04} ({migration.name}) of {path} failed: {error}. The database is "
            "as it was before this step; the next start tries it again."
        ) from error


def _configure(connection: sqlite3.Connection, synchronous: str, cache_kib: int) -> None:
    connection.execute("PRAGMA page_size = 4096")  # the block of SD cards and SSDs; only a new file heeds it
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # the same; lets a purge give its space back
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(
            "SQLite can't use a write-ahead log here; is the data folder on a network file system?"
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA recursive_triggers = ON")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    # The writer checkpoints by itself, after those who wait have their answer; this is for one huge commit.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    # No mmap: after each commit of another connection it is mapped anew, which made point reads twice as
    # slow; and a read error of a failing SD card would be a SIGBUS.
    connection.execute("PRAGMA mmap_size = 0")


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if found == APPLICATION_ID:
        return
    if found or connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise DatabaseDamaged(f"{path} is a SQLite database, but not one of minihs")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _has_wal(path: Path) -> bool:
    """Whether the last end was not clean: the last to close a database removes its WAL."""
    try:
        return os.stat(path.with_name(path.name + "-wal")).st_size > 0
    except FileNotFoundError:
        return False


def _newer(path: Path, version: int, newest: int) -> str:
    text = f"{path} has schema {version}, but this minihs knows only {newest}. Start the newer minihs again."
    kept = backup_path(path, newest)
    if kept.exists():
        text += f" Or go back, and lose all that came since the upgrade, with `minihs restore {kept}`."
    return text


def _damaged(path: Path, what: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"{path} is damaged: {what}. Keep a copy of it and its -wal file, then run `minihs restore` with "
        "your latest backup."
    )
