# SPDX-License-Identifier: Apache-2.0
"""Devices of local users. Deleting one takes its tokens, keys and waiting messages with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minihs.store import device_lists, key_signatures
from minihs.store.database import Reader, Tx


@dataclass(frozen=True, slots=True)
class Device:
    device_id: str
    display_name: str | None
    last_seen_ts: int | None
    last_seen_ip: str | None

    def to_json(self) -> dict[str, Any]:
        """As clients see it. matrix-nio can't read a list of devices in which a field is missing."""
        return {
            "device_id": self.device_id,
            "display_name": self.display_name,
            "last_seen_ts": self.last_seen_ts,
            "last_seen_ip": self.last_seen_ip,
        }


_SELECT = "SELECT device_id, display_name, last_seen_ts, last_seen_ip FROM devices "


def get(db: Reader, user_id: str, device_id: str) -> Device | None:
    row = db.execute(_SELECT + "WHERE user_id = ? AND device_id = ?", (user_id, device_id)).fetchone()
    return None if row is None else Device(*row)


def of_user(db: Reader, user_id: str) -> list[Device]:
    return [Device(*row) for row in db.execute(_SELECT + "WHERE user_id = ?", (user_id,)).fetchall()]


def ids_of(db: Reader, user_id: str) -> list[str]:
    return [
        row[0] for row in db.execute("SELECT device_id FROM devices WHERE user_id = ?", (user_id,)).fetchall()
    ]


def add(tx: Tx, user_id: str, device_id: str, display_name: str | None, *, now: int) -> bool:
    """False: the user has a device of that id already, and it stays as it is."""
    cursor = tx.execute(
        "INSERT OR IGNORE INTO devices (user_id, device_id, display_name, created_ts) VALUES (?, ?, ?, ?)",
        (user_id, device_id, display_name, now),
    )
    if cursor.rowcount != 1:
        return False
    device_lists.record_device_change(tx, user_id, device_id)
    return True


def rename(tx: Tx, user_id: str, device_id: str, display_name: str | None) -> bool:
    """False: there is no such device."""
    device = get(tx, user_id, device_id)
    if device is None:
        return False
    if device.display_name != display_name:
        tx.execute(
            "UPDATE devices SET display_name = ? WHERE user_id = ? AND device_id = ?",
            (display_name, user_id, device_id),
        )
        device_lists.record_device_change(tx, user_id, device_id)
    return True


def delete(tx: Tx, user_id: str, device_id: str) -> None:
    """Log the device out and forget it; nothing happens if it is gone already."""
    # Tokens, keys and to-device messages go by the foreign keys.
    cursor = tx.execute("DELETE FROM devices WHERE user_id = ? AND device_id = ?", (user_id, device_id))
    if cursor.rowcount != 1:
        return
    key_signatures.delete_of_key(tx, user_id, device_id)
    tx.execute("DELETE FROM to_device_txns WHERE sender = ? AND device_id = ?", (user_id, device_id))
    device_lists.record_device_change(tx, user_id, device_id, deleted=True)
    tx.wake(f"device:{user_id}|{device_id}")


def set_seen(tx: Tx, user_id: str, device_id: str, ts: int, ip: str | None) -> None:
    tx.execute(
        "UPDATE devices SET last_seen_ts = ?, last_seen_ip = COALESCE(?, last_seen_ip) "
        "WHERE user_id = ? AND device_id = ?",
        (ts, ip, user_id, device_id),
    )
