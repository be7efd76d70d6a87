# SPDX-License-Identifier: Apache-2.0
"""Which of a user's devices is the dehydrated one, and what it takes to bring it to life (MSC3814)."""

from __future__ import annotations

from minihs.store.database import Reader, Tx


def get(db: Reader, user_id: str) -> tuple[str, str] | None:
    """(device id, device data as JSON)."""
    row = db.execute(
        "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = ?", (user_id,)
    ).fetchone()
    return None if row is None else (str(row[0]), str(row[1]))


def is_one(db: Reader, user_id: str, device_id: str) -> bool:
    found = get(db, user_id)
    return found is not None and found[0] == device_id


def put(tx: Tx, user_id: str, device_id: str, device_data: str) -> None:
    """The device itself must be there, and no other dehydrated one; it goes with the device."""
    tx.execute("INSERT INTO dehydrated_devices VALUES (?, ?, ?)", (user_id, device_id, device_data))
