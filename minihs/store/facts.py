# SPDX-License-Identifier: Apache-2.0
"""What an operator wants to know of rooms and events: counts and lists for `minihs explain`. For scans."""

from __future__ import annotations

from minihs.store import ids
from minihs.store.database import Reader

MAX_LISTED = 20


def staged(db: Reader, event_id: str) -> dict[str, object] | None:
    """The inbox's row of an event that waits to be dealt with, or was set aside."""
    row = db.execute(
        "SELECT kind, room_id, origin, received_ts, attempts, not_before FROM inbox WHERE event_id = ?",
        (event_id,),
    ).fetchone()
    if row is None:
        return None
    names = ("kind", "room_id", "origin", "received_ts", "attempts", "not_before")
    return dict(zip(names, row, strict=True)) | {"kind": "set aside" if row[0] == 2 else "waiting"}


def inbox_of(db: Reader, room_id: str, now_ms: int) -> dict[str, int]:
    """How many PDUs of a room are due, wait for something, or were set aside."""
    due, deferred, aside = db.execute(
        "SELECT SUM(kind = 0 AND not_before <= ?), SUM(kind = 0 AND not_before > ?), SUM(kind = 2) "
        "FROM inbox WHERE room_id = ?",
        (now_ms, now_ms, room_id),
    ).fetchone()
    return {"due": due or 0, "deferred": deferred or 0, "set_aside": aside or 0}


def events_of(db: Reader, room_nid: int) -> dict[str, int]:
    """How many events of each kind a room has."""
    rows = db.execute(
        "SELECT outcome, outlier, COUNT(*) FROM events WHERE room_nid = ? GROUP BY outcome, outlier",
        (room_nid,),
    ).fetchall()
    found = {"accepted": 0, "soft_failed": 0, "rejected": 0, "outliers": 0}
    for outcome, outlier, count in rows:
        kind = "outliers" if outlier and outcome == 0 else ("accepted", "soft_failed", "rejected")[outcome]
        found[kind] += count
    return found


def memberships_of(db: Reader, room_nid: int) -> dict[str, int]:
    return dict(
        db.execute(
            "SELECT membership, COUNT(*) FROM memberships WHERE room_nid = ? GROUP BY membership", (room_nid,)
        ).fetchall()
    )


def servers_of(db: Reader, room_nid: int) -> list[tuple[str, int]]:
    """(server, joined users), those with most of them first."""
    return list(
        db.execute(
            "SELECT h.host, r.joined FROM room_hosts r JOIN hosts h USING (host_nid) "
            "WHERE r.room_nid = ? AND r.joined > 0 ORDER BY r.joined DESC, h.host",
            (room_nid,),
        ).fetchall()
    )


def events_at_key(db: Reader, room_nid: int, type: str, state_key: str) -> list[str]:
    """Ids of all events that were to set this state, the newest first."""
    key = ids.key_nid(db, type, state_key)
    return [
        row[0]
        for row in db.execute(
            "SELECT i.event_id FROM events e JOIN event_ids i USING (event_nid) "
            "WHERE e.room_nid = ? AND e.key_nid = ? "
            "ORDER BY e.topo IS NULL, e.topo DESC, e.event_nid DESC LIMIT ?",
            (room_nid, key, MAX_LISTED),
        ).fetchall()
    ]


def merges(db: Reader, room_nid: int, limit: int) -> list[tuple[str, int]]:
    """(event id, state group before it) of the newest events that have several parents."""
    return list(
        db.execute(
            "SELECT i.event_id, e.before_group FROM events e JOIN event_ids i USING (event_nid) "
            "WHERE e.room_nid = ? AND e.topo IS NOT NULL AND e.before_group IS NOT NULL "
            "AND (SELECT COUNT(*) FROM edges d WHERE d.event_nid = e.event_nid) > 1 "
            "ORDER BY e.topo DESC, e.arrival DESC LIMIT ?",
            (room_nid, limit),
        ).fetchall()
    )
