# SPDX-License-Identifier: Apache-2.0
"""Connections of sliding sync, so that they outlive a restart (MSC4186, "Connections")."""

from __future__ import annotations

from typing import NamedTuple

from minihs.store.database import Reader, Tx

MAX_CONNECTIONS = 10
"""Connections of one device: clients have three or so. The one saved longest ago goes."""


class SavedConnection(NamedTuple):
    number: int
    answer: int
    pos: int
    rooms: bytes


def load(db: Reader, user_id: str, device_id: str, conn_id: str) -> SavedConnection | None:
    row = db.execute(
        "SELECT number, answer, pos, rooms FROM sliding_connections "
        "WHERE user_id = ? AND device_id = ? AND conn_id = ?",
        (user_id, device_id, conn_id),
    ).fetchone()
    return None if row is None else SavedConnection._make(row)


def save(tx: Tx, user_id: str, device_id: str, conn_id: str, saved: SavedConnection, *, now: int) -> None:
    """Nothing, if the device is gone meanwhile."""
    tx.execute(
        "INSERT OR REPLACE INTO sliding_connections SELECT user_id, device_id, ?, ?, ?, ?, ?, ? FROM devices "
        "WHERE user_id = ? AND device_id = ?",
        (conn_id, *saved, now, user_id, device_id),
    )
    tx.execute(
        "DELETE FROM sliding_connections WHERE user_id = ? AND device_id = ? AND conn_id IN "
        "(SELECT conn_id FROM sliding_connections WHERE user_id = ? AND device_id = ? "
        "ORDER BY saved_ts DESC, conn_id LIMIT -1 OFFSET ?)",
        (user_id, device_id, user_id, device_id, MAX_CONNECTIONS),
    )
