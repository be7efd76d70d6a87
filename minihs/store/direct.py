# SPDX-License-Identifier: Apache-2.0
"""Direct rooms: those that a user's m.direct names, and those of two members (client-server-api, "Direct
Messaging"). Presence goes no further than these."""

from __future__ import annotations

from typing import Any

from minihs.store import account_data
from minihs.store.database import Reader

MAX_MEMBERS = 20
"""Of a room that m.direct names: a larger one is no talk between friends, whatever it is called."""
MAX_ROOMS = 500

_COUNT = (
    "(SELECT COUNT(*) FROM (SELECT 1 FROM memberships x WHERE x.room_nid = m.room_nid "
    f"AND x.membership = 'join' LIMIT {MAX_MEMBERS + 1}))"
)


def named(db: Reader, user_id: str) -> set[str]:
    """The room ids in the user's m.direct."""
    content: Any = account_data.get(db, user_id, "m.direct") or {}
    found: set[str] = set()
    for room_ids in content.values():
        if isinstance(room_ids, list):
            found.update(room_id for room_id in room_ids if isinstance(room_id, str))
    return found


def rooms_of(db: Reader, user_id: str) -> list[int]:
    """Numbers of the user's direct rooms, the latest first."""
    rows = db.execute(
        f"SELECT m.room_nid, r.room_id, {_COUNT} FROM memberships m JOIN rooms r USING (room_nid) "
        "WHERE m.user_id = ? AND m.membership = 'join' ORDER BY m.pos DESC",
        (user_id,),
    ).fetchall()
    in_m_direct = named(db, user_id)
    return [
        nid for nid, room_id, count in rows if count <= 2 or (count <= MAX_MEMBERS and room_id in in_m_direct)
    ][:MAX_ROOMS]


def contacts(db: Reader, user_id: str) -> set[str]:
    """Who is in a direct room with the user."""
    found: set[str] = set()
    for room_nid in rooms_of(db, user_id):
        found.update(
            row[0]
            for row in db.execute(
                "SELECT user_id FROM memberships WHERE room_nid = ? AND membership = 'join'", (room_nid,)
            ).fetchall()
        )
    return found - {user_id}


def are_contacts(db: Reader, user_id: str, other: str) -> bool:
    """Is `other` in a direct room of the user's?"""
    rows = db.execute(
        f"SELECT r.room_id, {_COUNT} FROM memberships m JOIN memberships o USING (room_nid) "
        "JOIN rooms r USING (room_nid) WHERE m.user_id = ? AND m.membership = 'join' "
        "AND o.user_id = ? AND o.membership = 'join'",
        (user_id, other),
    ).fetchall()
    if any(count <= 2 for _, count in rows):
        return True
    small = {room_id for room_id, count in rows if count <= MAX_MEMBERS}
    return bool(small) and not small.isdisjoint(named(db, user_id))
