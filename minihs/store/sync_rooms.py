# SPDX-License-Identifier: Apache-2.0
"""What a user was in which room at which position, and which rooms have news: the reads that start a
/sync."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from minihs.store.kept import MEMBERSHIPS, is_unwritten, kept
from minihs.store.reader import Reader
from minihs.store.timeline import padded

MAX_USERS_OF_HOST = 500
"""Users of one server that are looked at, to find one who may see an event or was in the room at some
time."""


class RoomMembership(NamedTuple):
    """A user's membership of a room, as of some position."""

    room_nid: int
    room_id: str
    membership: str
    event_nid: int
    pos: int
    """When it became so, or was last confirmed (a changed display name counts)."""


class Span(NamedTuple):
    """From `pos` on, the user's membership was this."""

    pos: int
    membership: str
    event_nid: int


def current_pos(db: Reader) -> int:
    pos = int(db.execute("SELECT pos FROM stream").fetchone()[0])
    if db.kept is not None:
        db.kept.pos = pos
    return pos


def memberships_at(db: Reader, user_id: str, upto: int, *, left: bool) -> list[RoomMembership]:
    """The user's rooms as of `upto`: joined, invited to and knocked on; with `left`, also left and not
    forgotten."""
    condition = "" if left else "AND m.membership IN ('join', 'invite', 'knock') "
    rows = [
        RoomMembership._make(row)
        for row in db.execute(
            "SELECT m.room_nid, r.room_id, m.membership, m.event_nid, m.pos FROM memberships m "
            f"JOIN rooms r USING (room_nid) WHERE m.user_id = ? {condition}AND m.forgotten = 0",
            (user_id,),
        ).fetchall()
    ]
    late = [row for row in rows if row.pos > upto]
    if not late:
        return rows
    # A commit came between the reading of `upto` and now: what it changed is told next time.
    earlier = []
    for row in late:
        span = span_at(db, user_id, row.room_nid, upto)
        if span is not None and (left or span.membership in ("join", "invite", "knock")):
            earlier.append(row._replace(membership=span.membership, event_nid=span.event_nid, pos=span.pos))
    return [row for row in rows if row.pos <= upto] + earlier


def changes_between(db: Reader, user_id: str, since: int, upto: int) -> list[RoomMembership]:
    """Every change of the user's memberships with since < pos ≤ upto, in order."""
    if is_unwritten(db, MEMBERSHIPS, user_id, since):
        return []
    return [
        RoomMembership._make(row)
        for row in db.execute(
            "SELECT l.room_nid, r.room_id, l.membership, l.event_nid, l.pos FROM membership_log l "
            "JOIN rooms r USING (room_nid) WHERE l.user_id = ? AND l.pos > ? AND l.pos <= ? ORDER BY l.pos",
            (user_id, since, upto),
        ).fetchall()
    ]


def span_at(db: Reader, user_id: str, room_nid: int, pos: int) -> Span | None:
    """What the user was in a room at `pos`; None: nothing yet."""
    row = db.execute(
        "SELECT pos, membership, event_nid FROM membership_log INDEXED BY membership_log_by_room "
        "WHERE user_id = ? AND room_nid = ? AND pos <= ? ORDER BY pos DESC LIMIT 1",
        (user_id, room_nid, pos),
    ).fetchone()
    return None if row is None else Span._make(row)


def spans(db: Reader, user_id: str, room_nid: int) -> Sequence[Span]:
    """All that a local user was in a room, oldest first."""
    return kept(db, MEMBERSHIPS, user_id, room_nid, lambda: _spans(db, user_id, room_nid))


def _spans(db: Reader, user_id: str, room_nid: int) -> Sequence[Span]:
    rows = db.execute(
        "SELECT pos, membership, event_nid FROM membership_log INDEXED BY membership_log_by_room "
        "WHERE user_id = ? AND room_nid = ? ORDER BY pos",
        (user_id, room_nid),
    ).fetchall()
    return tuple(map(Span._make, rows))


def is_forgotten(db: Reader, user_id: str, room_nid: int) -> bool:
    row = db.execute(
        "SELECT forgotten FROM memberships WHERE room_nid = ? AND user_id = ?", (room_nid, user_id)
    ).fetchone()
    return row is not None and bool(row[0])


def stripped_state(db: Reader, room_nid: int, user_id: str) -> str | None:
    """JSON of the stripped state that came with an out-of-band invite or knock."""
    row = db.execute(
        "SELECT stripped FROM memberships WHERE room_nid = ? AND user_id = ?", (room_nid, user_id)
    ).fetchone()
    return None if row is None else row[0]


def rooms_with_news(db: Reader, user_id: str, since: int) -> list[RoomMembership]:
    """Those of the user's joined rooms in which an event, the state or a receipt is newer than `since`.

    Three index probes for each room: a microsecond or so a room, however much has happened elsewhere.
    """
    return [
        RoomMembership._make(row)
        for row in db.execute(
            "SELECT m.room_nid, r.room_id, m.membership, m.event_nid, m.pos "
            "FROM memberships m INDEXED BY memberships_by_user JOIN rooms r USING (room_nid) "
            "WHERE m.user_id = :user AND m.membership = 'join' AND ("
            "EXISTS (SELECT 1 FROM events e INDEXED BY events_by_arrival "
            "        WHERE e.room_nid = m.room_nid AND e.topo IS NOT NULL AND e.arrival > :since) "
            "OR EXISTS (SELECT 1 FROM room_states s WHERE s.room_nid = m.room_nid AND s.pos > :since) "
            "OR EXISTS (SELECT 1 FROM receipts c INDEXED BY receipts_by_pos "
            "           WHERE c.room_nid = m.room_nid AND c.pos > :since))",
            {"user": user_id, "since": since},
        ).fetchall()
    ]


def joined_among(db: Reader, user_id: str, room_ids: Collection[str]) -> list[RoomMembership]:
    """Those of these rooms that the user is joined to."""
    found: list[RoomMembership] = []
    for marks, part in padded(room_ids):
        found.extend(
            RoomMembership._make(row)
            for row in db.execute(
                "SELECT m.room_nid, r.room_id, m.membership, m.event_nid, m.pos FROM rooms r "
                "JOIN memberships m ON m.room_nid = r.room_nid AND m.user_id = ? "
                f"WHERE r.room_id IN ({marks}) AND m.membership = 'join'",
                [user_id, *part],
            ).fetchall()
        )
    return found


def joined_room_ids(db: Reader, user_id: str) -> list[str]:
    return [
        row[0]
        for row in db.execute(
            "SELECT r.room_id FROM memberships m JOIN rooms r USING (room_nid) "
            "WHERE m.user_id = ? AND m.membership = 'join'",
            (user_id,),
        ).fetchall()
    ]


# --- summaries
# ----------------------------------------------------------------------------------------------------


def joined_count(db: Reader, room_nid: int) -> int:
    row = db.execute("SELECT SUM(joined) FROM room_hosts WHERE room_nid = ?", (room_nid,)).fetchone()
    return int(row[0] or 0)


def invited_count(db: Reader, room_nid: int) -> int:
    row = db.execute(
        "SELECT COUNT(*) FROM memberships INDEXED BY memberships_by_kind "
        "WHERE room_nid = ? AND membership = 'invite'",
        (room_nid,),
    ).fetchone()
    return int(row[0])


def members_by_kind(
    db: Reader, room_nid: int, membership: str, *, besides: str, limit: int
) -> list[tuple[int, str]]:
    """(pos, user id) of the first members of one kind, in the order in which they became it."""
    return list(
        db.execute(
            "SELECT pos, user_id FROM memberships INDEXED BY memberships_by_kind "
            "WHERE room_nid = ? AND membership = ? AND user_id != ? ORDER BY pos, user_id LIMIT ?",
            (room_nid, membership, besides, limit),
        ).fetchall()
    )


# --- who shares rooms with whom
# -----------------------------------------------------------------------------------


def sharing_encrypted_room(db: Reader, user_id: str, others: Collection[str]) -> set[str]:
    """Those of `others` who are joined to an encrypted room to which the user is joined too."""
    found: set[str] = set()
    for marks, part in padded(others):
        found.update(
            row[0]
            for row in db.execute(
                "SELECT DISTINCT o.user_id FROM memberships o INDEXED BY memberships_by_user "
                "JOIN memberships m ON m.room_nid = o.room_nid AND m.user_id = ? "
                "JOIN current_state s ON s.room_nid = o.room_nid AND s.key_nid = "
                "(SELECT key_nid FROM state_keys WHERE type = 'm.room.encryption' AND state_key = '') "
                f"WHERE o.user_id IN ({marks}) AND o.membership = 'join' AND m.membership = 'join'",
                [user_id, *part],
            ).fetchall()
        )
    return found


class SharedRoom(NamedTuple):
    room_nid: int
    room_id: str


def shared_rooms(db: Reader, user_id: str, other: str) -> list[SharedRoom]:
    """Rooms to which both are joined, in the order in which we came to know them."""
    return [
        SharedRoom._make(row)
        for row in db.execute(
            "SELECT a.room_nid, r.room_id FROM memberships a INDEXED BY memberships_by_user "
            "JOIN memberships b USING (room_nid) JOIN rooms r USING (room_nid) "
            "WHERE a.user_id = ? AND a.membership = 'join' AND b.user_id = ? AND b.membership = 'join' "
            "ORDER BY a.room_nid",
            (user_id, other),
        ).fetchall()
    ]


def joined_users(db: Reader, room_nid: int) -> list[str]:
    return [
        row[0]
        for row in db.execute(
            "SELECT user_id FROM memberships INDEXED BY memberships_by_kind "
            "WHERE room_nid = ? AND membership = 'join'",
            (room_nid,),
        ).fetchall()
    ]


def joined_members(db: Reader, room_nid: int) -> list[tuple[str, int]]:
    """(user id, nid of the membership event) of everybody who is joined."""
    return list(
        db.execute(
            "SELECT user_id, event_nid FROM memberships INDEXED BY memberships_by_kind "
            "WHERE room_nid = ? AND membership = 'join'",
            (room_nid,),
        ).fetchall()
    )


def users_of_host(db: Reader, room_nid: int, host: str) -> list[str]:
    """A server's users who are, or were, something in the room; of many, some."""
    return [
        row[0]
        for row in db.execute(
            "SELECT m.user_id FROM memberships m JOIN hosts h USING (host_nid) "
            "WHERE m.room_nid = ? AND h.host = ? LIMIT ?",
            (room_nid, host, MAX_USERS_OF_HOST),
        ).fetchall()
    ]
