# SPDX-License-Identifier: Apache-2.0
"""Accounts of this server."""

from __future__ import annotations

from dataclasses import dataclass

from minihs.store.database import Reader, Tx


@dataclass(frozen=True, slots=True)
class User:
    user_id: str
    password_hash: str | None
    created_ts: int
    admin: bool
    deactivated: bool
    locked: bool
    suspended: bool


def get(db: Reader, user_id: str) -> User | None:
    row = db.execute(
        "SELECT user_id, password_hash, created_ts, admin, deactivated, locked, suspended "
        "FROM users WHERE user_id = ?",
        (user_id,),
    ).fetchone()
    return None if row is None else User(row[0], row[1], row[2], *(bool(flag) for flag in row[3:]))


def is_active(db: Reader, user_id: str) -> bool:
    """Whether this is an account of this server that was not deactivated."""
    row = db.execute("SELECT deactivated FROM users WHERE user_id = ?", (user_id,)).fetchone()
    return row is not None and not row[0]


def add(tx: Tx, user_id: str, password_hash: str | None, *, admin: bool, now: int) -> bool:
    """False: the user id is taken, perhaps by a deactivated account."""
    cursor = tx.execute(
        "INSERT OR IGNORE INTO users (user_id, password_hash, created_ts, admin) VALUES (?, ?, ?, ?)",
        (user_id, password_hash, now, int(admin)),
    )
    return cursor.rowcount == 1


def set_password_hash(tx: Tx, user_id: str, password_hash: str) -> None:
    tx.execute(
        "UPDATE users SET password_hash = ? WHERE user_id = ? AND deactivated = 0", (password_hash, user_id)
    )


def replace_password_hash(tx: Tx, user_id: str, old: str, new: str) -> None:
    """The same password hashed with newer parameters; does nothing if the password was changed meanwhile."""
    tx.execute(
        "UPDATE users SET password_hash = ? WHERE user_id = ? AND password_hash = ?", (new, user_id, old)
    )


def set_locked(tx: Tx, user_id: str, locked: bool) -> None:
    tx.execute("UPDATE users SET locked = ? WHERE user_id = ?", (int(locked), user_id))


def set_suspended(tx: Tx, user_id: str, suspended: bool) -> None:
    tx.execute("UPDATE users SET suspended = ? WHERE user_id = ?", (int(suspended), user_id))


def deactivate(tx: Tx, user_id: str) -> None:
    """Close the account for ever. It is still to be taken out of its rooms: see `leaving`."""
    tx.execute(
        "UPDATE users SET deactivated = 1, leaving = 1, password_hash = NULL, admin = 0 WHERE user_id = ?",
        (user_id,),
    )


def leaving(db: Reader) -> list[str]:
    """Deactivated accounts that still have to leave rooms."""
    return [row[0] for row in db.execute("SELECT user_id FROM users WHERE leaving = 1").fetchall()]


def set_left(tx: Tx, user_id: str) -> None:
    tx.execute("UPDATE users SET leaving = 0 WHERE user_id = ?", (user_id,))
