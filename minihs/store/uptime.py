# SPDX-License-Identifier: Apache-2.0
"""What the tables tell of when we were last up, and which rooms matter most after an absence."""

from __future__ import annotations

from minihs.store.database import Reader


def last_sign_of_life(db: Reader) -> int | None:
    """When (ms) we last talked with another server, in either direction; None: never."""
    heard = db.execute("SELECT MAX(received_ts) FROM inbound_txns").fetchone()[0]
    told = db.execute("SELECT MAX(last_success) FROM destinations").fetchone()[0]
    known = [ts for ts in (heard, told) if ts is not None]
    return max(known, default=None)


def room_mates(db: Reader, limit: int) -> list[str]:
    """Servers that share a room with us, those that answered last first. For a scan."""
    rows = db.execute(
        "SELECT h.host FROM hosts h LEFT JOIN destinations d USING (host_nid) WHERE EXISTS "
        "(SELECT 1 FROM room_hosts r JOIN rooms USING (room_nid) "
        "WHERE r.host_nid = h.host_nid AND r.joined > 0 AND rooms.resident = 1) "
        "ORDER BY COALESCE(d.last_success, 0) DESC LIMIT ?",
        (limit,),
    ).fetchall()
    return [row[0] for row in rows]


def active_rooms(db: Reader, limit: int) -> list[str]:
    """Rooms that we share with other servers, those with the newest events first. For a scan."""
    rows = db.execute(
        "SELECT r.room_id FROM rooms r WHERE r.resident = 1 AND "
        "(SELECT COUNT(*) FROM room_hosts o WHERE o.room_nid = r.room_nid AND o.joined > 0) > 1 "
        "ORDER BY (SELECT MAX(arrival) FROM events e INDEXED BY events_by_arrival "
        "WHERE e.room_nid = r.room_nid AND e.topo IS NOT NULL) DESC LIMIT ?",
        (limit,),
    ).fetchall()
    return [row[0] for row in rows]
