# SPDX-License-Identifier: Apache-2.0
"""Account data of users, global and per room (client-server-api, "Client Config").

A user's push rules are read as the global account data `m.push_rules` here, though they are kept elsewhere,
so that every reader sees them alike.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from minihs.store import push_rules
from minihs.store.database import Reader, Tx
from minihs.store.kept import ACCOUNT_DATA, is_unwritten, kept

PUSH_RULES = "m.push_rules"
IGNORED_USERS = "m.ignored_user_list"

GLOBAL = ""
"""The `room_id` of what belongs to no room."""


class AccountData(NamedTuple):
    room_id: str
    """`GLOBAL` or a room id."""
    type: str
    content: dict[str, Any]


def get(db: Reader, user_id: str, type: str, room_id: str = GLOBAL) -> dict[str, Any] | None:
    if type == PUSH_RULES and room_id == GLOBAL:
        return {"global": push_rules.ruleset(db, user_id)}
    row = db.execute(
        "SELECT content FROM account_data WHERE user_id = ? AND room_id = ? AND type = ?",
        (user_id, room_id, type),
    ).fetchone()
    if row is None:
        return None
    content: dict[str, Any] = json.loads(row[0])
    return content


def changed_at(db: Reader, user_id: str, type: str) -> int:
    """`pos` at which some global account data was last written; 0: never."""
    row = db.execute(
        "SELECT pos FROM account_data WHERE user_id = ? AND room_id = '' AND type = ?", (user_id, type)
    ).fetchone()
    return 0 if row is None else int(row[0])


def put(tx: Tx, user_id: str, type: str, content: str, room_id: str = GLOBAL) -> None:
    """`content` is a JSON object. Clients see it with their next /sync."""
    tx.execute(
        "INSERT INTO account_data VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id, room_id, type) "
        "DO UPDATE SET content = excluded.content, pos = excluded.pos",
        (user_id, room_id, type, content, tx.next_pos()),
    )
    tx.wake(f"user:{user_id}")


def changed(db: Reader, user_id: str, since: int, upto: int) -> list[AccountData]:
    """What was last written after `since` and up to `upto`, in that order; all there is for `since=0`."""
    if is_unwritten(db, ACCOUNT_DATA, user_id, since):
        return []
    rows = db.execute(
        "SELECT room_id, type, content, pos FROM account_data "
        "WHERE user_id = :user AND pos > :since AND pos <= :upto "
        "UNION ALL SELECT NULL, NULL, NULL, pos FROM push_rules "
        "WHERE user_id = :user AND pos > :since AND pos <= :upto ORDER BY pos",
        {"user": user_id, "since": since, "upto": upto},
    ).fetchall()
    result = [AccountData(room_id, type, json.loads(content)) for room_id, type, content, _ in rows if type]
    if since == 0 or len(result) < len(rows):
        result.append(AccountData(GLOBAL, PUSH_RULES, {"global": push_rules.ruleset(db, user_id)}))
    return result


def of_room(db: Reader, user_id: str, room_id: str, since: int = 0, upto: int = 2**62) -> list[AccountData]:
    """What of one room was last written after `since` and up to `upto`; all, for a room that is new to the
    client."""
    rows = db.execute(
        "SELECT room_id, type, content FROM account_data WHERE user_id = ? AND room_id = ? "
        "AND pos > ? AND pos <= ? ORDER BY pos",
        (user_id, room_id, since, upto),
    ).fetchall()
    return [AccountData(room_id, type, json.loads(content)) for room_id, type, content in rows]


def of_type(db: Reader, user_id: str, type: str) -> list[AccountData]:
    """What there is of one type, in all rooms."""
    rows = db.execute(
        "SELECT room_id, content FROM account_data WHERE user_id = ? AND type = ?", (user_id, type)
    ).fetchall()
    return [AccountData(room_id, type, json.loads(content)) for room_id, content in rows]


def ignored_users(db: Reader, user_id: str) -> frozenset[str]:
    """Whom the user doesn't want to hear (client-server-api, "Ignoring Users")."""
    return kept(db, ACCOUNT_DATA, user_id, IGNORED_USERS, lambda: _ignored_users(db, user_id))


def _ignored_users(db: Reader, user_id: str) -> frozenset[str]:
    content = get(db, user_id, IGNORED_USERS)
    users = content.get("ignored_users") if content else None
    return frozenset(users) if isinstance(users, dict) else frozenset()


def delete(tx: Tx, user_id: str) -> None:
    tx.execute("DELETE FROM account_data WHERE user_id = ?", (user_id,))
    tx.execute("DELETE FROM push_rules WHERE user_id = ?", (user_id,))
