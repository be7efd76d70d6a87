# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with the database as a whole, as types; the texts tell an operator what to do.

An error inside one write closure is not among them: it is raised to the one who asked for that write.
"""

from __future__ import annotations

import sqlite3


class StoreError(Exception):
    """The database can't be used."""


class DatabaseInUse(StoreError):
    """Another process has this database open."""


class NewerSchema(StoreError):
    """The database was written by a later minihs than this one."""


class DatabaseDamaged(StoreError):
    """A check of the file found damage, or the file is no database of ours."""


class MigrationFailed(StoreError):
    """The schema could not be brought up to date; the database is as it was before the failed step."""


class BackupFailed(StoreError):
    """No backup was made, or the one made did not pass its check; the target is as it was before."""


class WriterStopped(StoreError):
    """The outcome of a COMMIT is unknown, so nothing more is written; raised to all who wait for a write.

    The process has to end: only a new start, which reads what really reached the disk, can tell.
    `Database.open` raises it as well, so a server that lets it through exits non-zero.
    """


_OF_THE_DISK = frozenset(
    [
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    ]
)


def is_of_the_disk(error: BaseException) -> bool:
    """Whether a write or read failed for a reason that has nothing to do with what was written or read."""
    if isinstance(error, StoreError):
        return True
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return code is not None and code & 0xFF in _OF_THE_DISK
