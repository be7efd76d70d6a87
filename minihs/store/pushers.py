# SPDX-License-Identifier: Apache-2.0
"""Pushers: where a user's notifications are sent, and how far that has got."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from minihs.store.reader import Reader
from minihs.store.writer import Tx

MAX_PUSHERS = 30
"""Of one user; beyond that the oldest go: clients that lost their key leave pushers behind."""


class Pusher(NamedTuple):
    """A row."""

    pusher_id: int
    user_id: str
    app_id: str
    pushkey: str
    about: dict[str, Any]
    """kind, names, lang, data and profile_tag, as the client gave them."""
    created_ts: int
    cursor: int
    """`pos` up to which everything was pushed, or was not to be."""
    badge: int
    failing_since: int | None
    retry_at: int | None
    backoff_ms: int


_SELECT = (
    "SELECT pusher_id, user_id, app_id, pushkey, about, created_ts, cursor, badge, failing_since, retry_at, "
    "backoff_ms FROM pushers "
)


def _pusher(row: Any) -> Pusher:
    made = Pusher._make(row)
    return made._replace(about=json.loads(row[4]))


def all_pushers(db: Reader) -> list[Pusher]:
    return [_pusher(row) for row in db.execute(_SELECT + "ORDER BY pusher_id").fetchall()]


def of_user(db: Reader, user_id: str) -> list[Pusher]:
    rows = db.execute(_SELECT + "WHERE user_id = ? ORDER BY pusher_id", (user_id,)).fetchall()
    return [_pusher(row) for row in rows]


def exists(db: Reader, pusher_id: int) -> bool:
    """A pusher ends with its device, of which nobody tells us."""
    row = db.execute("SELECT 1 FROM pushers WHERE pusher_id = ?", (pusher_id,)).fetchone()
    return row is not None


def put(
    tx: Tx,
    user_id: str,
    device_id: str,
    app_id: str,
    pushkey: str,
    about: str,
    *,
    now_ms: int,
    append: bool,
) -> None:
    """Make a pusher or change it; without `append`, take the key away from all other users. What is there
    already is not pushed."""
    if not append:
        tx.execute(
            "DELETE FROM pushers WHERE app_id = ? AND pushkey = ? AND user_id != ?",
            (app_id, pushkey, user_id),
        )
    tx.execute(
        "INSERT INTO pushers (user_id, device_id, app_id, pushkey, about, created_ts, cursor) "
        "SELECT ?, ?, ?, ?, ?, ?, pos FROM stream WHERE id = 1 "
        "ON CONFLICT (user_id, app_id, pushkey) DO UPDATE SET about = excluded.about, "
        "device_id = excluded.device_id, created_ts = excluded.created_ts, failing_since = NULL, "
        "retry_at = NULL, backoff_ms = 0, last_error = NULL",
        (user_id, device_id, app_id, pushkey, about, now_ms),
    )
    tx.execute(
        "DELETE FROM pushers WHERE user_id = ? AND pusher_id NOT IN "
        "(SELECT pusher_id FROM pushers WHERE user_id = ? ORDER BY created_ts DESC, pusher_id DESC LIMIT ?)",
        (user_id, user_id, MAX_PUSHERS),
    )


def remove(tx: Tx, user_id: str, app_id: str, pushkey: str) -> None:
    tx.execute(
        "DELETE FROM pushers WHERE user_id = ? AND app_id = ? AND pushkey = ?", (user_id, app_id, pushkey)
    )


def remove_key(tx: Tx, app_id: str, pushkey: str) -> None:
    """The gateway says that the key is not valid any more."""
    tx.execute("DELETE FROM pushers WHERE app_id = ? AND pushkey = ?", (app_id, pushkey))


def move(tx: Tx, pusher_id: int, cursor: int, badge: int) -> None:
    """It works, and has got so far."""
    tx.execute(
        "UPDATE pushers SET cursor = MAX(cursor, ?), badge = ?, failing_since = NULL, retry_at = NULL, "
        "backoff_ms = 0, last_error = NULL WHERE pusher_id = ?",
        (cursor, badge, pusher_id),
    )


def fail(tx: Tx, pusher_id: int, *, now_ms: int, retry_at: int, backoff_ms: int, error: str) -> None:
    tx.execute(
        "UPDATE pushers SET failing_since = COALESCE(failing_since, ?), retry_at = ?, backoff_ms = ?, "
        "last_error = ? WHERE pusher_id = ?",
        (now_ms, retry_at, backoff_ms, error, pusher_id),
    )
