# SPDX-License-Identifier: Apache-2.0
"""Server-side key backups (client-server-api, "Server-side key backups")."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.store.database import Reader, Tx


@dataclass(frozen=True, slots=True)
class Backup:
    version: int
    algorithm: str
    auth_data: str
    """JSON"""
    etag: int
    key_count: int
    deleted: int
    """1: only the number is kept"""

    def to_json(self) -> JsonObject:
        return {
            "algorithm": self.algorithm,
            "auth_data": json.loads(self.auth_data),
            "count": self.key_count,
            "etag": str(self.etag),
            "version": str(self.version),
        }


class BackedUpKey(NamedTuple):
    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: str
    """JSON"""

    def to_json(self) -> JsonObject:
        return {
            "first_message_index": self.first_message_index,
            "forwarded_count": self.forwarded_count,
            "is_verified": bool(self.is_verified),
            "session_data": json.loads(self.session_data),
        }

    def is_better_than(self, other: BackedUpKey) -> bool:
        """The rule of the specification for two keys of one session: equal ones are not better."""
        return (not self.is_verified, self.first_message_index, self.forwarded_count) < (
            not other.is_verified,
            other.first_message_index,
            other.forwarded_count,
        )


_SELECT = "SELECT version, algorithm, auth_data, etag, key_count, deleted FROM key_backups "


def get(db: Reader, user_id: str, version: int) -> Backup | None:
    """Deleted ones too: see `deleted`."""
    row = db.execute(_SELECT + "WHERE user_id = ? AND version = ?", (user_id, version)).fetchone()
    return None if row is None else Backup(*row)


def current(db: Reader, user_id: str) -> Backup | None:
    row = db.execute(
        _SELECT + "WHERE user_id = ? AND deleted = 0 ORDER BY version DESC LIMIT 1", (user_id,)
    ).fetchone()
    return None if row is None else Backup(*row)


def add(tx: Tx, user_id: str, algorithm: str, auth_data: str) -> int:
    row = tx.execute(
        "SELECT COALESCE(MAX(version), 0) + 1 FROM key_backups WHERE user_id = ?", (user_id,)
    ).fetchone()
    tx.execute(
        "INSERT INTO key_backups (user_id, version, algorithm, auth_data) VALUES (?, ?, ?, ?)",
        (user_id, row[0], algorithm, auth_data),
    )
    return int(row[0])


def set_auth_data(tx: Tx, user_id: str, version: int, auth_data: str) -> None:
    tx.execute(
        "UPDATE key_backups SET auth_data = ? WHERE user_id = ? AND version = ?",
        (auth_data, user_id, version),
    )


def delete(tx: Tx, user_id: str, version: int) -> None:
    """Delete the keys; the number stays, so that it is never given to another backup."""
    tx.execute("DELETE FROM backed_up_keys WHERE user_id = ? AND version = ?", (user_id, version))
    tx.execute(
        "UPDATE key_backups SET deleted = 1, key_count = 0, auth_data = '{}' WHERE user_id = ? AND version = "
        "?",
        (user_id, version),
    )


def delete_all(tx: Tx, user_id: str) -> None:
    tx.execute("DELETE FROM key_backups WHERE user_id = ?", (user_id,))


_KEYS = (
    "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data "
    "FROM backed_up_keys WHERE user_id = ? AND version = ?"
)


def keys(
    db: Reader, user_id: str, version: int, room_id: str | None = None, session_id: str | None = None
) -> list[BackedUpKey]:
    """All keys, a room's, or one."""
    condition, values = _narrowed(room_id, session_id)
    return [
        BackedUpKey(*row) for row in db.execute(_KEYS + condition, (user_id, version, *values)).fetchall()
    ]


def put_keys(tx: Tx, user_id: str, version: int, new: Iterable[BackedUpKey]) -> None:
    """Add keys, each unless there is one as good already. The etag moves only if something changed."""
    added = changed = 0
    for key in new:
        known = keys(tx, user_id, version, key.room_id, key.session_id)
        if known and not key.is_better_than(known[0]):
            continue
        tx.execute(
            "INSERT OR REPLACE INTO backed_up_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (user_id, version, *key[:4], int(key.is_verified), key.session_data),
        )
        changed += 1
        added += not known
    _touch(tx, user_id, version, changed, added)


def delete_keys(
    tx: Tx, user_id: str, version: int, room_id: str | None = None, session_id: str | None = None
) -> None:
    condition, values = _narrowed(room_id, session_id)
    cursor = tx.execute(
        "DELETE FROM backed_up_keys WHERE user_id = ? AND version = ?" + condition,
        (user_id, version, *values),
    )
    _touch(tx, user_id, version, cursor.rowcount, -cursor.rowcount)


def _narrowed(room_id: str | None, session_id: str | None) -> tuple[str, list[str]]:
    values = [value for value in (room_id, session_id) if value is not None]
    return " AND room_id = ?" * (room_id is not None) + " AND session_id = ?" * (
        session_id is not None
    ), values


def _touch(tx: Tx, user_id: str, version: int, changed: int, added: int) -> None:
    if changed:
        tx.execute(
            "UPDATE key_backups SET etag = etag + 1, key_count = key_count + ? WHERE user_id = ? AND version "
            "= ?",
            (added, user_id, version),
        )
