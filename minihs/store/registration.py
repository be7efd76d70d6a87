# SPDX-License-Identifier: Apache-2.0
"""Registration tokens, by their SHA-256 (client-server-api, "Token-authenticated registration")."""

from __future__ import annotations

from minihs.store.database import Reader, Tx


def add(tx: Tx, digest: bytes, *, uses: int | None, expires_ts: int | None, now: int) -> None:
    """A token good for `uses` accounts (None: any number)."""
    tx.execute("DELETE FROM registration_tokens WHERE uses_left = 0 OR expires_ts <= ?", (now,))
    tx.execute(
        "INSERT INTO registration_tokens (digest, created_ts, uses_left, expires_ts) VALUES (?, ?, ?, ?)",
        (digest, now, uses, expires_ts),
    )


_GOOD = "(uses_left IS NULL OR uses_left > 0) AND (expires_ts IS NULL OR expires_ts > ?)"


def is_valid(db: Reader, digest: bytes, *, now: int) -> bool:
    sql = f"SELECT 1 FROM registration_tokens WHERE digest = ? AND {_GOOD}"
    return db.execute(sql, (digest, now)).fetchone() is not None


def any_valid(db: Reader, *, now: int) -> bool:
    """Has somebody an invitation that is still good?"""
    sql = f"SELECT 1 FROM registration_tokens WHERE {_GOOD} LIMIT 1"
    return db.execute(sql, (now,)).fetchone() is not None


def use(tx: Tx, digest: bytes, *, now: int) -> bool:
    """Take one use; False if there is none left."""
    if not is_valid(tx, digest, now=now):
        return False
    tx.execute("UPDATE registration_tokens SET uses_left = uses_left - 1 WHERE digest = ?", (digest,))
    return True
