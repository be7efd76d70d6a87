# SPDX-License-Identifier: Apache-2.0
"""Backups of a database that may be in use: one consistent, compact, checked copy.

`VACUUM INTO` reads one state of the database while the server goes on writing. The copy gets its name only
once it has passed `integrity_check` and is on disk, so a file with a backup's name is a whole backup.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from minihs.store.errors import BackupFailed


def backup(database: Path, target: Path) -> None:
    """Write a backup of `database` to `target`, replacing an older one. Blocks: minutes if it is large."""
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        _copy(database, partial)
        _check(partial)
        _sync(partial)
        partial.replace(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise BackupFailed(f"cannot write {target}: {error}") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _copy(database: Path, partial: Path) -> None:
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))  # it holds secrets
    source = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10
    )
    try:
        source.execute("VACUUM INTO ?", (str(partial),))
    finally:
        source.close()


def _check(partial: Path) -> None:
    copy = sqlite3.connect(f"{partial.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        found = [row[0] for row in copy.execute("PRAGMA integrity_check(5)").fetchall()]
    finally:
        copy.close()
    if found != ["ok"]:
        raise BackupFailed("the copy did not pass its check: " + "; ".join(found))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
