# SPDX-License-Identifier: Apache-2.0
"""What notifications need to know besides the events: invites, who knows whom, when an event came."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from minihs.store.reader import Reader
from minihs.store.timeline import padded


class Invite(NamedTuple):
    pos: int
    room_nid: int
    room_id: str
    event_nid: int


def open_invites(db: Reader, user_id: str, after: int) -> list[Invite]:
    """Invites since a position that the user has not answered, oldest first."""
    return [
        Invite._make(row)
        for row in db.execute(
            "SELECT m.pos, m.room_nid, r.room_id, m.event_nid "
            "FROM memberships m INDEXED BY memberships_by_user JOIN rooms r USING (room_nid) "
            "WHERE m.user_id = ? AND m.membership = 'invite' AND m.pos > ? ORDER BY m.pos",
            (user_id, after),
        ).fetchall()
    ]


def share_a_room(db: Reader, user_id: str, other: str) -> bool:
    """Are both joined to some room?"""
    row = db.execute(
        "SELECT 1 FROM memberships a INDEXED BY memberships_by_user JOIN memberships b USING (room_nid) "
        "WHERE a.user_id = ? AND a.membership = 'join' AND b.user_id = ? AND b.membership = 'join' LIMIT 1",
        (other, user_id),
    ).fetchone()
    return row is not None


def received(db: Reader, nids: Collection[int]) -> dict[int, int]:
    """nid → when we got the event (ms)."""
    found: dict[int, int] = {}
    for marks, part in padded(nids):
        found.update(
            db.execute(
                f"SELECT event_nid, received_ts FROM events WHERE event_nid IN ({marks})", part
            ).fetchall()
        )
    return found


def members_among(db: Reader, room_id: str, users: Collection[str]) -> set[str]:
    """Those of our users to whom news of the room may be told: who are in it, or invited."""
    rows = db.execute(
        "SELECT m.user_id FROM rooms r JOIN memberships m INDEXED BY memberships_local USING (room_nid) "
        "WHERE r.room_id = ? AND m.local = 1 AND m.membership IN ('join', 'invite')",
        (room_id,),
    ).fetchall()
    return {row[0] for row in rows} & set(users)
