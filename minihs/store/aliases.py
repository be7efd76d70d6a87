# SPDX-License-Identifier: Apache-2.0
"""Room aliases of this server."""

from __future__ import annotations

from minihs.store.database import Reader, Tx


def resolve(db: Reader, alias: str) -> str | None:
    row = db.execute("SELECT room_id FROM aliases WHERE alias = ?", (alias,)).fetchone()
    return None if row is None else str(row[0])


def creator(db: Reader, alias: str) -> str | None:
    row = db.execute("SELECT creator FROM aliases WHERE alias = ?", (alias,)).fetchone()
    return None if row is None else str(row[0])


def of_room(db: Reader, room_id: str) -> list[str]:
    return [
        row[0]
        for row in db.execute(
            "SELECT alias FROM aliases WHERE room_id = ? ORDER BY alias", (room_id,)
        ).fetchall()
    ]


def add(tx: Tx, alias: str, room_id: str, creator: str, now_ms: int) -> bool:
    """False if the alias is taken."""
    return bool(
        tx.execute(
            "INSERT OR IGNORE INTO aliases VALUES (?, ?, ?, ?)", (alias, room_id, creator, now_ms)
        ).rowcount
    )


def remove(tx: Tx, alias: str) -> None:
    tx.execute("DELETE FROM aliases WHERE alias = ?", (alias,))


def move(tx: Tx, old_id: str, new_id: str) -> None:
    """All aliases of a room lead to another one now."""
    tx.execute("UPDATE aliases SET room_id = ? WHERE room_id = ?", (new_id, old_id))
