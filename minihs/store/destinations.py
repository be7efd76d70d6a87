# SPDX-License-Identifier: Apache-2.0
"""Where each other server stands: what it still must get, and whether it answers."""

from __future__ import annotations

from dataclasses import dataclass

from minihs.store import ids
from minihs.store.database import Reader, Tx
from minihs.store.packing import unpack


@dataclass(frozen=True, slots=True)
class Destination:
    """A row of `destinations`; times are milliseconds."""

    host: str
    host_nid: int
    cursor: int
    failing_since: int | None
    retry_at: int | None
    backoff_ms: int
    last_success: int | None
    last_error: str | None


_SELECT = (
    "SELECT h.host, d.host_nid, d.cursor, d.failing_since, d.retry_at, d.backoff_ms, d.last_success, "
    "d.last_error FROM destinations d JOIN hosts h USING (host_nid) "
)


def get(db: Reader, host: str) -> Destination | None:
    row = db.execute(_SELECT + "WHERE h.host = ?", (host,)).fetchone()
    return None if row is None else Destination(*row)


def everyone(db: Reader) -> list[Destination]:
    return [Destination(*row) for row in db.execute(_SELECT + "ORDER BY h.host").fetchall()]


def intern(tx: Tx, host: str) -> int:
    """The host's number; what was sent to others before it was known is none of its business."""
    host_nid = ids.intern_host(tx, host)
    tx.execute(
        "INSERT OR IGNORE INTO destinations (host_nid, cursor) "
        "VALUES (?, (SELECT COALESCE(MAX(seq), 0) FROM outbound))",
        (host_nid,),
    )
    return host_nid


def with_work(db: Reader) -> list[str]:
    """Servers that something waits for."""
    rows = db.execute(
        "SELECT h.host FROM destinations d JOIN hosts h USING (host_nid) WHERE EXISTS ("
        "SELECT 1 FROM outbound o JOIN host_set_members m USING (host_set_nid) "
        "WHERE m.host_nid = d.host_nid AND o.seq > d.cursor) "
        "UNION SELECT h.host FROM outbound_edus e JOIN hosts h USING (host_nid)"
    ).fetchall()
    return [row[0] for row in rows]


def hosts_of_set(db: Reader, host_set_nid: int) -> list[str]:
    rows = db.execute(
        "SELECT h.host FROM host_set_members m JOIN hosts h USING (host_nid) WHERE m.host_set_nid = ?",
        (host_set_nid,),
    ).fetchall()
    return [row[0] for row in rows]


def newest(db: Reader) -> int:
    """The last place in the order of sending."""
    return int(db.execute("SELECT COALESCE(MAX(seq), 0) FROM outbound").fetchone()[0])


def next_events(db: Reader, host_nid: int, after: int, limit: int) -> list[tuple[int, bytes]]:
    """(seq, PDU as JSON) of what comes next for a server."""
    rows = db.execute(
        "SELECT o.seq, j.json FROM outbound o CROSS JOIN host_set_members m "
        "ON m.host_set_nid = o.host_set_nid AND m.host_nid = ? "
        "JOIN event_json j ON j.event_nid = o.event_nid WHERE o.seq > ? ORDER BY o.seq LIMIT ?",
        (host_nid, after, limit),
    ).fetchall()
    return [(row[0], unpack(row[1])) for row in rows]


def next_edus(db: Reader, host_nid: int, limit: int) -> list[tuple[int, str]]:
    """(seq, EDU as JSON): to-device messages first, they carry keys that somebody waits for."""
    return list(
        db.execute(
            "SELECT seq, edu FROM outbound_edus WHERE host_nid = ? "
            "ORDER BY (json_extract(edu, '$.edu_type') <> 'm.direct_to_device'), seq LIMIT ?",
            (host_nid, limit),
        ).fetchall()
    )


def delivered(
    tx: Tx, host_nid: int, *, cursor: int | None, edus: list[int], now_ms: int, error: str | None = None
) -> None:
    """The server has these, or they were set aside."""
    tx.execute(
        "UPDATE destinations SET cursor = MAX(cursor, COALESCE(?, cursor)), failing_since = NULL, "
        "retry_at = NULL, backoff_ms = 0, last_success = ?, last_error = ? WHERE host_nid = ?",
        (cursor, now_ms, error, host_nid),
    )
    for seq in edus:
        tx.execute("DELETE FROM outbound_edus WHERE seq = ?", (seq,))


def failed(tx: Tx, host_nid: int, *, now_ms: int, retry_at: int, backoff_ms: int, error: str) -> None:
    tx.execute(
        "UPDATE destinations SET failing_since = COALESCE(failing_since, ?), retry_at = ?, backoff_ms = ?, "
        "last_error = ? WHERE host_nid = ?",
        (now_ms, retry_at, backoff_ms, error[:500], host_nid),
    )


def clear_backoff(tx: Tx, host: str) -> None:
    tx.execute(
        "UPDATE destinations SET retry_at = NULL, backoff_ms = 0 "
        "WHERE host_nid = (SELECT host_nid FROM hosts WHERE host = ?)",
        (host,),
    )


def shares_a_room(db: Reader, host_nid: int) -> bool:
    """Is a user of the server in a room that we are in?"""
    row = db.execute(
        "SELECT 1 FROM room_hosts r JOIN rooms USING (room_nid) "
        "WHERE r.host_nid = ? AND r.joined > 0 AND rooms.resident = 1 LIMIT 1",
        (host_nid,),
    ).fetchone()
    return row is not None


def tidy(tx: Tx) -> None:
    """Move the cursors of servers that nothing waits for to the end, and drop what all servers have."""
    tx.execute(
        "UPDATE destinations SET cursor = (SELECT COALESCE(MAX(seq), 0) FROM outbound) WHERE NOT EXISTS ("
        "SELECT 1 FROM outbound o JOIN host_set_members m USING (host_set_nid) "
        "WHERE m.host_nid = destinations.host_nid AND o.seq > destinations.cursor)"
    )
    tx.execute("DELETE FROM outbound WHERE seq <= (SELECT COALESCE(MIN(cursor), 0) FROM destinations)")
