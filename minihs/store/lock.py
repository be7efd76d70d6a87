# SPDX-License-Identifier: Apache-2.0
"""One process per database: a lock file beside it, held for as long as the database is open.

`flock` and not the `fcntl` record locks: those belong to the process, so the same process could open the
database twice, and closing any other handle of the file would drop the lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minihs.store.errors import DatabaseInUse, StoreError


@contextmanager
def lock(database: Path) -> Iterator[None]:
    """Hold `<database>.lock`; DatabaseInUse if somebody else does. The file stays, it is the lock that
    matters.
    """
    path = database.with_name(database.name + ".lock")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"cannot create {path}: {error.strerror}. The data folder must exist and be writable by the user "
            "that runs minihs."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise DatabaseInUse(
                f"{database} is in use by another minihs (process {owner}). Stop that one first, or give "
                "this one a `data_dir` of its own."
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
