# SPDX-License-Identifier: Apache-2.0
"""Transaction ids of clients: which event a repeated request made the first time."""

from __future__ import annotations

from minihs.store.database import Reader, Tx


def find(db: Reader, user_id: str, device_id: str, scope: str, txn_id: str) -> str | None:
    """The event id that this request made."""
    row = db.execute(
        "SELECT i.event_id FROM client_txns t JOIN event_ids i USING (event_nid) "
        "WHERE t.user_id = ? AND t.device_id = ? AND t.scope = ? AND t.txn_id = ?",
        (user_id, device_id, scope, txn_id),
    ).fetchone()
    return None if row is None else str(row[0])


def remember(
    tx: Tx, user_id: str, device_id: str, scope: str, txn_id: str, event_nid: int, now_ms: int
) -> None:
    tx.execute(
        "INSERT INTO client_txns VALUES (?, ?, ?, ?, ?, ?)",
        (user_id, device_id, scope, txn_id, event_nid, now_ms),
    )


def forget(tx: Tx, before_ms: int) -> None:
    tx.execute("DELETE FROM client_txns WHERE created_ts < ?", (before_ms,))
