# SPDX-License-Identifier: Apache-2.0
"""Access, refresh, login and OpenID tokens, by their SHA-256 (client-server-api, "Refreshing access tokens").

A client that asks for refresh tokens gets pairs. Exchanging a refresh token makes a new pair, and the old
refresh token stays good until one of the new pair is used, since the answer with it may have been lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from minihs.store.database import Reader, Tx


class AccessToken(NamedTuple):
    """An access token with what a request needs to know about its owner."""

    token_id: int
    user_id: str
    device_id: str
    expires_ts: int | None
    used: bool
    admin: bool
    deactivated: bool
    locked: bool
    suspended: bool
    last_seen_ts: int | None


def access_token(db: Reader, digest: bytes) -> AccessToken | None:
    row = db.execute(
        "SELECT t.token_id, t.user_id, t.device_id, t.expires_ts, t.used, u.admin, u.deactivated, u.locked, "
        "u.suspended, d.last_seen_ts FROM access_tokens t JOIN users u USING (user_id) "
        "JOIN devices d USING (user_id, device_id) WHERE t.digest = ?",
        (digest,),
    ).fetchone()
    if row is None:
        return None
    token_id, user_id, device_id, expires_ts, *flags, last_seen_ts = row
    used, admin, deactivated, locked, suspended = (bool(flag) for flag in flags)
    return AccessToken(
        token_id, user_id, device_id, expires_ts, used, admin, deactivated, locked, suspended, last_seen_ts
    )


def add_access_token(
    tx: Tx,
    digest: bytes,
    user_id: str,
    device_id: str,
    *,
    now: int,
    expires_ts: int | None = None,
    refresh_id: int | None = None,
) -> None:
    tx.execute(
        "INSERT INTO access_tokens (digest, user_id, device_id, created_ts, expires_ts, refresh_id) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (digest, user_id, device_id, now, expires_ts, refresh_id),
    )


def add_refresh_token(tx: Tx, digest: bytes, user_id: str, device_id: str, *, now: int) -> int:
    row = tx.execute(
        "INSERT INTO refresh_tokens (digest, user_id, device_id, created_ts) VALUES (?, ?, ?, ?) "
        "RETURNING refresh_id",
        (digest, user_id, device_id, now),
    ).fetchone()
    return int(row[0])


@dataclass(frozen=True, slots=True)
class RefreshToken:
    refresh_id: int
    user_id: str
    device_id: str
    successor: int | None


def refresh_token(db: Reader, digest: bytes) -> RefreshToken | None:
    row = db.execute(
        "SELECT refresh_id, user_id, device_id, successor FROM refresh_tokens WHERE digest = ?", (digest,)
    ).fetchone()
    return None if row is None else RefreshToken(*row)


def set_successor(tx: Tx, refresh_id: int, successor: int) -> None:
    """Remember the pair that a refresh token was exchanged for. An earlier, unused one is dropped."""
    row = tx.execute("SELECT successor FROM refresh_tokens WHERE refresh_id = ?", (refresh_id,)).fetchone()
    if row is not None and row[0] is not None:
        _drop_pair(tx, row[0])
    tx.execute("UPDATE refresh_tokens SET successor = ? WHERE refresh_id = ?", (successor, refresh_id))


def confirm_pair(tx: Tx, refresh_id: int) -> None:
    """One of the pair was used, so the client has it: what came before it is revoked."""
    for row in tx.execute(
        "SELECT refresh_id FROM refresh_tokens WHERE successor = ?", (refresh_id,)
    ).fetchall():
        _drop_pair(tx, row[0])


def confirm_access_token(tx: Tx, token_id: int) -> None:
    row = tx.execute(
        "UPDATE access_tokens SET used = 1 WHERE token_id = ? RETURNING refresh_id", (token_id,)
    ).fetchone()
    if row is not None and row[0] is not None:
        confirm_pair(tx, row[0])


def _drop_pair(tx: Tx, refresh_id: int) -> None:
    tx.execute("DELETE FROM access_tokens WHERE refresh_id = ?", (refresh_id,))
    tx.execute("DELETE FROM refresh_tokens WHERE refresh_id = ?", (refresh_id,))


def delete_of_device(tx: Tx, user_id: str, device_id: str) -> None:
    for table in ("access_tokens", "refresh_tokens"):
        tx.execute(f"DELETE FROM {table} WHERE user_id = ? AND device_id = ?", (user_id, device_id))


def add_login_token(
    tx: Tx, digest: bytes, user_id: str, device_id: str, expires_ts: int, *, now: int
) -> None:
    tx.execute("DELETE FROM login_tokens WHERE expires_ts <= ?", (now,))
    tx.execute("INSERT INTO login_tokens VALUES (?, ?, ?, ?)", (digest, user_id, device_id, expires_ts))


def use_login_token(tx: Tx, digest: bytes, *, now: int) -> str | None:
    """Whose token it was, once; None if it is not valid, or not any more."""
    row = tx.execute(
        "DELETE FROM login_tokens WHERE digest = ? AND expires_ts > ? RETURNING user_id", (digest, now)
    ).fetchone()
    return None if row is None else str(row[0])


def add_openid_token(tx: Tx, digest: bytes, user_id: str, expires_ts: int, *, now: int) -> None:
    tx.execute("DELETE FROM openid_tokens WHERE expires_ts <= ?", (now,))
    tx.execute("INSERT INTO openid_tokens VALUES (?, ?, ?)", (digest, user_id, expires_ts))


def openid_user(db: Reader, digest: bytes, *, now: int) -> str | None:
    """Whom a still valid OpenID token stands for."""
    row = db.execute(
        "SELECT t.user_id FROM openid_tokens t JOIN users u USING (user_id) "
        "WHERE t.digest = ? AND t.expires_ts > ? AND u.deactivated = 0",
        (digest, now),
    ).fetchone()
    return None if row is None else str(row[0])


def delete_openid_tokens(tx: Tx, user_id: str) -> None:
    tx.execute("DELETE FROM openid_tokens WHERE user_id = ?", (user_id,))
