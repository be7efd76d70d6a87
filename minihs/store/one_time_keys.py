# SPDX-License-Identifier: Apache-2.0
"""One-time and fallback keys of local users' devices (client-server-api, "One-time and fallback keys").

A one-time key is handed out once, ever. Claiming deletes it in the same commit; a digest of it stays for a
while, so that an upload repeated by a client that missed the answer does not bring it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minihs.store.database import Reader, Tx
from minihs.store.kept import DEVICE_KEYS, kept

REMEMBER_CLAIMED_MS = 90 * 24 * 3600 * 1000


class UploadedKey(NamedTuple):
    algorithm: str
    key_id: str
    json: str
    digest: bytes
    """SHA-256 of the public key itself."""


def add(tx: Tx, user_id: str, device_id: str, keys: Sequence[UploadedKey], *, now: int) -> UploadedKey | None:
    """Add keys. Returns the first whose id belongs to another key already; the caller then rolls back."""
    tx.execute("DELETE FROM claimed_keys WHERE claimed_ts < ?", (now - REMEMBER_CLAIMED_MS,))
    for key in keys:
        row = tx.execute(
            "SELECT json FROM one_time_keys WHERE user_id = ? AND device_id = ? AND algorithm = ? AND key_id "
            "= ?",
            (user_id, device_id, key.algorithm, key.key_id),
        ).fetchone()
        if row is not None:
            if row[0] != key.json:
                return key
            continue
        claimed = tx.execute(
            "SELECT 1 FROM claimed_keys WHERE user_id = ? AND device_id = ? AND digest = ?",
            (user_id, device_id, key.digest),
        ).fetchone()
        if claimed is None:
            tx.execute(
                "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, json, digest) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (user_id, device_id, key.algorithm, key.key_id, key.json, key.digest),
            )
    return None


def set_fallback(tx: Tx, user_id: str, device_id: str, key: UploadedKey) -> None:
    """Replace the fallback key of this algorithm. The same key again keeps being marked as used."""
    tx.execute(
        "INSERT INTO fallback_keys VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (user_id, device_id, algorithm) "
        "DO UPDATE SET key_id = excluded.key_id, json = excluded.json, used = 0 WHERE json != excluded.json",
        (user_id, device_id, key.algorithm, key.key_id, key.json),
    )


def counts(db: Reader, user_id: str, device_id: str) -> Mapping[str, int]:
    """Unclaimed one-time keys by algorithm."""

    def read() -> Mapping[str, int]:
        statement = (
            "SELECT algorithm, COUNT(*) FROM one_time_keys WHERE user_id = ? AND device_id = ? "
            "GROUP BY algorithm"
        )
        return dict(db.execute(statement, (user_id, device_id)).fetchall())

    return kept(db, DEVICE_KEYS, user_id, (device_id, "counts"), read)


def unused_fallback_types(db: Reader, user_id: str, device_id: str) -> Sequence[str]:
    def read() -> Sequence[str]:
        statement = "SELECT algorithm FROM fallback_keys WHERE user_id = ? AND device_id = ? AND used = 0"
        return [row[0] for row in db.execute(statement, (user_id, device_id)).fetchall()]

    return kept(db, DEVICE_KEYS, user_id, (device_id, "unused fallback"), read)


def claim(
    tx: Tx, user_id: str, device_id: str, algorithm: str, *, now: int
) -> tuple[str, str | dict[str, Any]] | None:
    """Hand out the oldest one-time key, or else the fallback key: ("algorithm:id", key)."""
    rows = tx.execute(
        "DELETE FROM one_time_keys WHERE seq = (SELECT seq FROM one_time_keys "
        "WHERE user_id = ? AND device_id = ? AND algorithm = ? ORDER BY seq LIMIT 1) RETURNING key_id, json, "
        "digest",
        (user_id, device_id, algorithm),
    ).fetchall()
    if rows:
        key_id, text, digest = rows[0]
        tx.execute(
            "INSERT OR REPLACE INTO claimed_keys VALUES (?, ?, ?, ?)", (user_id, device_id, digest, now)
        )
    else:
        row = tx.execute(
            "SELECT key_id, json, used FROM fallback_keys WHERE user_id = ? AND device_id = ? AND algorithm "
            "= ?",
            (user_id, device_id, algorithm),
        ).fetchone()
        if row is None:
            return None
        key_id, text, used = row
        if not used:
            tx.execute(
                "UPDATE fallback_keys SET used = 1 WHERE user_id = ? AND device_id = ? AND algorithm = ?",
                (user_id, device_id, algorithm),
            )
    tx.wake(f"device:{user_id}|{device_id}")
    return f"{algorithm}:{key_id}", json.loads(text)
