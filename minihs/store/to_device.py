# SPDX-License-Identifier: Apache-2.0
"""Messages that wait for local devices (client-server-api, "Send-to-Device messaging").

`read` does not remove: a message goes with `acknowledge`, when the device's next `since` proves that it has
it.
"""

from __future__ import annotations

import json
from typing import Any

from minihs.store import devices
from minihs.store.database import Reader, Tx
from minihs.store.kept import TO_DEVICE, is_unwritten

MAX_WAITING = 20_000
"""Messages that may wait for one device. Only a device that nobody uses any more, or a flood, gets there;
further ones are dropped."""

REMEMBER_TXNS_MS = 24 * 3600 * 1000

ALL_DEVICES = "*"


def add(tx: Tx, user_id: str, device_id: str, sender: str, event_type: str, content: dict[str, Any]) -> None:
    """Have a message wait for a device, or for all of a user's devices (`*`). Unknown devices get nothing."""
    text = json.dumps(
        {"sender": sender, "type": event_type, "content": content}, ensure_ascii=False, separators=(",", ":")
    )
    known = devices.ids_of(tx, user_id)
    for each in known if device_id == ALL_DEVICES else [device_id]:
        if each in known and not _is_full(tx, user_id, each):
            tx.execute("INSERT INTO to_device VALUES (?, ?, ?, ?)", (tx.next_pos(), user_id, each, text))
            tx.wake(f"device:{user_id}|{each}")


def _is_full(db: Reader, user_id: str, device_id: str) -> bool:
    row = db.execute(
        "SELECT 1 FROM to_device WHERE user_id = ? AND device_id = ? ORDER BY pos LIMIT 1 OFFSET ?",
        (user_id, device_id, MAX_WAITING - 1),
    ).fetchone()
    return row is not None


def read(
    db: Reader, user_id: str, device_id: str, since: int, upto: int, limit: int = 100
) -> list[tuple[int, dict[str, Any]]]:
    """The waiting messages with since < pos ≤ upto in the order of their coming: (pos, event).

    When `limit` of them come back there may be more: the next `since` must be the last one's pos.
    """
    if is_unwritten(db, TO_DEVICE, user_id, since):
        return []
    rows = db.execute(
        "SELECT pos, json FROM to_device WHERE user_id = ? AND device_id = ? AND pos > ? AND pos <= ? "
        "ORDER BY pos LIMIT ?",
        (user_id, device_id, since, upto, limit),
    ).fetchall()
    return [(pos, json.loads(text)) for pos, text in rows]


def is_acknowledged(db: Reader, user_id: str, device_id: str, upto: int) -> bool:
    """Whether `acknowledge` would have nothing to do: spares most /sync requests a write."""
    row = db.execute(
        "SELECT 1 FROM to_device WHERE user_id = ? AND device_id = ? AND pos <= ? LIMIT 1",
        (user_id, device_id, upto),
    ).fetchone()
    return row is None


def acknowledge(tx: Tx, user_id: str, device_id: str, upto: int) -> None:
    """The device has all messages up to `upto`."""
    tx.execute(
        "DELETE FROM to_device WHERE user_id = ? AND device_id = ? AND pos <= ?", (user_id, device_id, upto)
    )


def first_time(tx: Tx, sender: str, device_id: str, scope: str, txn_id: str, *, now: int) -> bool:
    """Note a transaction; False: it was seen before and must have no effect again."""
    tx.execute("DELETE FROM to_device_txns WHERE seen_ts < ?", (now - REMEMBER_TXNS_MS,))
    cursor = tx.execute(
        "INSERT OR IGNORE INTO to_device_txns VALUES (?, ?, ?, ?, ?)", (sender, device_id, scope, txn_id, now)
    )
    return cursor.rowcount == 1
