# SPDX-License-Identifier: Apache-2.0
"""Reading: what every read function takes, and the read-only connections behind it.

A reader can't write, checkpoint or wait: it is opened `mode=ro` and `query_only`, after the writer, with no
busy time-out. (SQLite before 3.51.3 can corrupt a database when two connections checkpoint; here only the
writer's does.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from minihs.store.kept import Kept, Written
from minihs.store.state_cache import StateCache

type Parameters = Sequence[object] | Mapping[str, object]

CACHED_STATEMENTS = 512
"""Prepared statements kept per connection; preparing anew costs 5 to 50 times a point read."""

PROGRESS_STEP = 10_000
"""Steps of SQLite's virtual machine between two looks at the budget (about 0.1 ms)."""


class Reader(Protocol):
    """What functions that only read ask for: the loop's reader, a scan's reader, or a write's transaction."""

    def execute(self, sql: str, parameters: Parameters = (), /) -> sqlite3.Cursor:
        """Run one statement. Fetch all rows at once: a half-read cursor pins an old state of the database."""
        ...

    @property
    def kept(self) -> Kept | None:
        """For minihs.store.kept. None: everything is read."""
        ...


class ReadConnection:
    """A read-only connection whose statements have a budget of virtual machine steps each.

    Steps and not time: a slow disk or a stopped machine must not turn a good read into an error, and a
    statement that lacks its index is caught the same way everywhere. Past the budget SQLite raises
    `OperationalError: interrupted`.
    """

    def __init__(
        self,
        path: Path,
        *,
        budget: int,
        cache_kib: int,
        state_cache: int,
        written: Written | None = None,
        any_thread: bool = False,
    ) -> None:
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=0,
            cached_statements=CACHED_STATEMENTS,
            check_same_thread=not any_thread,
        )
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        self._connection.execute("PRAGMA temp_store = MEMORY")
        self.in_closure = False
        """Set while closures run on the loop, where using the reader in one would go unnoticed."""
        self._budget = budget
        self._used = 0
        self._connection.set_progress_handler(self._progress, PROGRESS_STEP)
        self.state_cache = StateCache(state_cache)
        """State groups read lately; for minihs.store.state."""
        self.kept = None if written is None else Kept(written)

    def execute(self, sql: str, parameters: Parameters = (), /) -> sqlite3.Cursor:
        if self.in_closure:
            raise RuntimeError("a write closure reads through its transaction, not through the reader")
        self._used = 0
        return self._connection.execute(sql, parameters)

    def close(self) -> None:
        self._connection.close()

    def _progress(self) -> bool:
        self._used += PROGRESS_STEP
        return self._used > self._budget
