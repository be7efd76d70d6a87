# SPDX-License-Identifier: Apache-2.0
"""Finding users by name: our own, and those who are members of rooms that we know.

A search reads the member events of many rooms, so it runs as a scan.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from minihs.matrix import canonical
from minihs.store.database import Reader
from minihs.store.packing import unpack

MAX_MEMBERS = 50_000
"""Members looked at in one search."""


class Found(NamedTuple):
    user_id: str
    display_name: str | None
    avatar_url: str | None


def search(db: Reader, searcher: str, term: str, limit: int) -> tuple[list[Found], bool]:
    """Up to `limit` users whose id or name contains `term` (in small letters); True: there are more.

    Exact matches come first, then those that begin with the term, then those with a name.
    """
    found: dict[str, Found] = {}
    for user in _local(db):
        if user.user_id != searcher and _matches(user, term):
            found[user.user_id] = user
    for user in _members(db, searcher):
        if user.user_id not in found and user.user_id != searcher and _matches(user, term):
            found[user.user_id] = user
    ranked = sorted(found.values(), key=lambda user: _rank(user, term))
    return ranked[:limit], len(ranked) > limit


def _matches(user: Found, term: str) -> bool:
    return term in user.user_id.lower() or (
        user.display_name is not None and term in user.display_name.lower()
    )


def _rank(user: Found, term: str) -> tuple[int, bool, str]:
    names = [user.user_id.lower(), user.user_id.lower()[1:].partition(":")[0]]
    if user.display_name is not None:
        names.append(user.display_name.lower())
    order = 0 if term in names else 1 if any(name.startswith(term) for name in names) else 2
    return order, user.display_name is None, user.user_id


def _local(db: Reader) -> list[Found]:
    rows = db.execute(
        "SELECT u.user_id, n.value, a.value FROM users u "
        "LEFT JOIN profiles n ON n.user_id = u.user_id AND n.field = 'displayname' "
        "LEFT JOIN profiles a ON a.user_id = u.user_id AND a.field = 'avatar_url' WHERE u.deactivated = 0"
    ).fetchall()
    return [
        Found(user_id, json.loads(name) if name else None, json.loads(avatar) if avatar else None)
        for user_id, name, avatar in rows
    ]


def _members(db: Reader, searcher: str) -> list[Found]:
    """Joined members of the searcher's rooms and of rooms that anybody may join or read."""
    found: dict[str, Found] = {}
    for room_nid in _visible_rooms(db, searcher):
        rows = db.execute(
            "SELECT m.user_id, j.json FROM memberships m JOIN event_json j USING (event_nid) "
            "WHERE m.room_nid = ? AND m.membership = 'join' LIMIT ?",
            (room_nid, MAX_MEMBERS - len(found)),
        ).fetchall()
        for user_id, packed in rows:
            if user_id not in found:
                content = _content(packed)
                found[user_id] = Found(
                    user_id, _text(content.get("displayname")), _text(content.get("avatar_url"))
                )
        if len(found) >= MAX_MEMBERS:
            break
    return list(found.values())


def _visible_rooms(db: Reader, searcher: str) -> list[int]:
    joined = [
        row[0]
        for row in db.execute(
            "SELECT room_nid FROM memberships WHERE user_id = ? AND membership = 'join'", (searcher,)
        ).fetchall()
    ]
    public = [
        room_nid
        for room_nid, type, packed in db.execute(
            "SELECT s.room_nid, k.type, j.json FROM current_state s JOIN state_keys k USING (key_nid) "
            "JOIN event_json j USING (event_nid) WHERE k.state_key = '' "
            "AND k.type IN ('m.room.join_rules', 'm.room.history_visibility')"
        ).fetchall()
        if _is_open(type, _content(packed))
    ]
    return list(dict.fromkeys([*joined, *public]))


def _is_open(type: str, content: dict[str, Any]) -> bool:
    if type == "m.room.join_rules":
        return content.get("join_rule") == "public"
    return content.get("history_visibility") == "world_readable"


def _content(packed: bytes) -> dict[str, Any]:
    content = canonical.loads(unpack(packed)).get("content")
    return content if isinstance(content, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
