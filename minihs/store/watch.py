# SPDX-License-Identifier: Apache-2.0
"""Telling when certain tables are written, whatever the statement: for those who keep in memory what is in
them, and may not be wrong for a moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

SESSIONS = "sessions"
"""Woken by what decides who may ask with which access token."""

_TABLES = {SESSIONS: ("access_tokens", "users", "devices")}


def watch(connection: sqlite3.Connection, woken: Callable[[str], None]) -> None:
    """Have `woken` called with the key whenever a row of one of its tables is written by this connection."""
    connection.create_function("woken", 1, woken)
    here = {row[0] for row in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")}
    for key, tables in _TABLES.items():
        for table in here.intersection(tables):
            for action in ("INSERT", "UPDATE", "DELETE"):
                connection.execute(
                    f"CREATE TEMP TRIGGER {action}_in_{table} AFTER {action} ON main.{table} "
                    f"BEGIN SELECT woken('{key}'); END"
                )
