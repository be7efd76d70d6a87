# SPDX-License-Identifier: Apache-2.0
"""Where other servers were found last time: answers of .well-known and SRV look-ups, kept over restarts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from minihs.store.database import Reader, Tx

MAX_ROWS = 100_000
"""Anybody can make us look up names, so the table has an end; what expired first leaves first."""

KEEP_EXPIRED_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Cached:
    """One look-up. `answer` None with `known` is "there is none"; without `known` no answer was ever had."""

    answer: Any
    known: bool
    fetched_ts: int
    expires_ts: int
    failures: int


def get(db: Reader, kind: str, name: str) -> Cached | None:
    row = db.execute(
        "SELECT answer, fetched_ts, expires_ts, failures FROM discovery_cache WHERE kind = ? AND name = ?",
        (kind, name),
    ).fetchone()
    if row is None:
        return None
    return Cached(None if row[0] is None else json.loads(row[0]), row[0] is not None, row[1], row[2], row[3])


def put(tx: Tx, kind: str, name: str, entry: Cached) -> None:
    tx.execute(
        "INSERT OR REPLACE INTO discovery_cache VALUES (?, ?, ?, ?, ?, ?)",
        (
            kind,
            name,
            json.dumps(entry.answer) if entry.known else None,
            entry.fetched_ts,
            entry.expires_ts,
            entry.failures,
        ),
    )


def expire(tx: Tx, name: str, now: int) -> None:
    """Have the name looked up again; the answers stay, for the case that nobody answers."""
    tx.execute("UPDATE discovery_cache SET expires_ts = MIN(expires_ts, ?) WHERE name = ?", (now, name))


def prune(tx: Tx, now: int) -> None:
    """Forget what expired long ago, and the oldest of what is too much."""
    tx.execute("DELETE FROM discovery_cache WHERE expires_ts < ?", (now - KEEP_EXPIRED_MS,))
    surplus = tx.execute("SELECT COUNT(*) FROM discovery_cache").fetchone()[0] - MAX_ROWS
    if surplus > 0:
        tx.execute(
            "DELETE FROM discovery_cache WHERE (kind, name) IN "
            "(SELECT kind, name FROM discovery_cache ORDER BY expires_ts LIMIT ?)",
            (surplus,),
        )
