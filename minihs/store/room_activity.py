# SPDX-License-Identifier: Apache-2.0
"""When something last happened in each of a user's rooms: what sliding sync sorts its list by and sees news
from (MSC4186)."""

from __future__ import annotations

from typing import NamedTuple

from minihs.store.reader import Reader
from minihs.store.sync_rooms import RoomMembership

BUMP_TYPES = (
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
    "org.matrix.msc3672.beacon_info",
)
"""Activity that a room list shows a room for (MSC4186, `bump_stamp`), and the names that clients use."""

MAX_LOOKED_AT = 500
"""Events of one room among which its last activity is looked for."""


class RoomActivity(NamedTuple):
    """One of a user's rooms. Positions; 0: never, or not looked for, since the user is not joined."""

    room_nid: int
    room_id: str
    membership: str
    event_nid: int
    """The user's own membership event."""
    pos: int
    """When the user's membership became so, or was last confirmed."""
    sender: str
    """Who made them what they are."""
    last_event: int
    last_state: int
    last_receipt: int
    own_receipt: int
    """The last of the user's own receipts."""
    last_data: int
    """The room's account data."""

    @property
    def as_membership(self) -> RoomMembership:
        return RoomMembership(self.room_nid, self.room_id, self.membership, self.event_nid, self.pos)


def of_user(db: Reader, user_id: str) -> list[RoomActivity]:
    """All rooms in which the user is or was something, but for those forgotten.

    A handful of index probes for each joined room, however much has happened.
    """
    return [
        RoomActivity._make(row)
        for row in db.execute(
            "SELECT m.room_nid, r.room_id, m.membership, m.event_nid, m.pos, coalesce(o.sender, ''), "
            "CASE m.membership WHEN 'join' THEN coalesce((SELECT e.arrival FROM events e "
            " INDEXED BY events_by_arrival WHERE e.room_nid = m.room_nid AND e.topo IS NOT NULL "
            " AND e.outcome = 0 ORDER BY e.arrival DESC LIMIT 1), 0) ELSE 0 END, "
            "CASE m.membership WHEN 'join' THEN coalesce((SELECT max(s.pos) FROM room_states s "
            " WHERE s.room_nid = m.room_nid), 0) ELSE 0 END, "
            "CASE m.membership WHEN 'join' THEN coalesce((SELECT max(c.pos) FROM receipts c "
            " INDEXED BY receipts_by_pos WHERE c.room_nid = m.room_nid), 0) ELSE 0 END, "
            "CASE m.membership WHEN 'join' THEN coalesce((SELECT max(c.pos) FROM receipts c "
            " WHERE c.room_nid = m.room_nid AND c.user_id = m.user_id), 0) ELSE 0 END, "
            "coalesce((SELECT max(a.pos) FROM account_data a "
            " WHERE a.user_id = m.user_id AND a.room_id = r.room_id), 0) "
            "FROM memberships m INDEXED BY memberships_by_user JOIN rooms r USING (room_nid) "
            "LEFT JOIN events o ON o.event_nid = m.event_nid WHERE m.user_id = ? AND m.forgotten = 0",
            (user_id,),
        ).fetchall()
    ]


def changed_between(db: Reader, user_id: str, since: int, upto: int) -> set[int]:
    """Those of the user's joined rooms in which an event or the state is of since < pos ≤ upto."""
    return {
        row[0]
        for row in db.execute(
            "SELECT m.room_nid FROM memberships m INDEXED BY memberships_by_user "
            "WHERE m.user_id = :user AND m.membership = 'join' AND ("
            "EXISTS (SELECT 1 FROM events e INDEXED BY events_by_arrival WHERE e.room_nid = m.room_nid "
            "        AND e.topo IS NOT NULL AND e.arrival > :since AND e.arrival <= :upto) "
            "OR EXISTS (SELECT 1 FROM room_states s WHERE s.room_nid = m.room_nid "
            "           AND s.pos > :since AND s.pos <= :upto))",
            {"user": user_id, "since": since, "upto": upto},
        ).fetchall()
    }


def last_bump(db: Reader, room_nid: int, after: int, upto: int) -> int | None:
    """Arrival of the last of BUMP_TYPES with after < arrival ≤ upto, among the room's newest events."""
    marks = ",".join("?" * len(BUMP_TYPES))
    row = db.execute(
        "SELECT max(arrival) FROM (SELECT type, arrival FROM events INDEXED BY events_by_arrival "
        "WHERE room_nid = ? AND topo IS NOT NULL AND outcome = 0 AND arrival > ? AND arrival <= ? "
        f"ORDER BY arrival DESC LIMIT ?) WHERE type IN ({marks})",
        (room_nid, after, upto, MAX_LOOKED_AT, *BUMP_TYPES),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def with_state_key(db: Reader, user_id: str, key_nid: int) -> dict[int, int]:
    """Of the rooms that the user is joined to, those whose current state has the key: room_nid →
    event_nid."""
    return dict(
        db.execute(
            "SELECT m.room_nid, s.event_nid FROM memberships m INDEXED BY memberships_by_user "
            "JOIN current_state s ON s.room_nid = m.room_nid AND s.key_nid = ? "
            "WHERE m.user_id = ? AND m.membership = 'join'",
            (key_nid, user_id),
        ).fetchall()
    )


def keys_of_type(db: Reader, type: str, limit: int) -> list[int]:
    """key_nids of up to `limit` state keys of a type, of all rooms."""
    rows = db.execute("SELECT key_nid FROM state_keys WHERE type = ? LIMIT ?", (type, limit)).fetchall()
    return [row[0] for row in rows]
