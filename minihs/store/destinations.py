# SPDX-License-Identifier: Apache-2.0
"""Where each other server stands: what it still must get, and whether it answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from minihs.store import ids
from minihs.store.database import Reader, Tx
from minihs.store.packing import unpack

MAX_WAITING_EDUS = 20_000
"""Durable EDUs kept for one server; of a server that is gone for long, the oldest are dropped."""


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
    attempt_ts: int | None
    """When the transaction that was written down last was made."""
    attempt_until: int | None
    """It has the server's PDUs after `cursor`, up to this place in the order of sending ..."""
    attempt_edus: str | None
    """... and these durable EDUs: JSON, a list of `seq`."""


_SELECT = (
    "SELECT h.host, d.host_nid, d.cursor, d.failing_since, d.retry_at, d.backoff_ms, d.last_success, "
    "d.last_error, d.attempt_ts, d.attempt_until, d.attempt_edus "
    "FROM destinations d JOIN hosts h USING (host_nid) "
)

# Something is queued for the server `d` that it does not have. By set, each of them one look into an index.
_HAS_WORK = (
    "(EXISTS (SELECT 1 FROM host_set_members m CROSS JOIN outbound o "
    "ON o.host_set_nid = m.host_set_nid AND o.seq > d.cursor WHERE m.host_nid = d.host_nid) "
    "OR EXISTS (SELECT 1 FROM outbound_edus e WHERE e.host_nid = d.host_nid))"
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
    """Servers that something waits for, those that answered last first. A long read: for `Database.scan`."""
    rows = db.execute(
        "SELECT h.host FROM destinations d JOIN hosts h USING (host_nid) WHERE " + _HAS_WORK + " UNION "
        "SELECT h.host FROM outbound_edus e JOIN hosts h USING (host_nid)"
    ).fetchall()
    seen = dict(
        db.execute(
            "SELECT h.host, d.last_success FROM destinations d JOIN hosts h USING (host_nid)"
        ).fetchall()
    )
    return sorted((row[0] for row in rows), key=lambda host: -(seen.get(host) or 0))


def hosts_of_set(db: Reader, host_set_nid: int) -> list[str]:
    rows = db.execute(
        "SELECT h.host FROM host_set_members m JOIN hosts h USING (host_nid) WHERE m.host_set_nid = ?",
        (host_set_nid,),
    ).fetchall()
    return [row[0] for row in rows]


def newest(db: Reader) -> int:
    """The last place in the order of sending."""
    return int(db.execute("SELECT COALESCE(MAX(seq), 0) FROM outbound").fetchone()[0])


def next_events(
    db: Reader, host_nid: int, *, after: int, up_to: int, limit: int
) -> list[tuple[int, str, bytes]]:
    """(seq, event id, PDU as JSON) of what comes next for a server."""
    rows = db.execute(
        "SELECT o.seq, i.event_id, j.json FROM outbound o CROSS JOIN host_set_members m "
        "ON m.host_nid = ? AND m.host_set_nid = o.host_set_nid "
        "JOIN event_json j ON j.event_nid = o.event_nid JOIN event_ids i ON i.event_nid = o.event_nid "
        "WHERE o.seq > ? AND o.seq <= ? ORDER BY o.seq LIMIT ?",
        (host_nid, after, up_to, limit),
    ).fetchall()
    return [(row[0], row[1], unpack(row[2])) for row in rows]


def next_edus(db: Reader, host_nid: int, limit: int) -> list[tuple[int, str]]:
    """(seq, EDU as JSON): to-device messages first, they carry keys that somebody waits for."""
    return list(
        db.execute(
            "SELECT seq, edu FROM outbound_edus WHERE host_nid = ? "
            "ORDER BY (json_extract(edu, '$.edu_type') <> 'm.direct_to_device'), seq LIMIT ?",
            (host_nid, limit),
        ).fetchall()
    )


def edus_again(db: Reader, host_nid: int, seqs: str) -> list[tuple[int, str]]:
    """(seq, EDU as JSON) of those in `seqs` (JSON, a list) that still wait for a server, in that order."""
    return list(
        db.execute(
            "SELECT e.seq, e.edu FROM json_each(?) w JOIN outbound_edus e ON e.seq = w.value "
            "WHERE e.host_nid = ? ORDER BY w.key",
            (seqs, host_nid),
        ).fetchall()
    )


def stored_at(db: Reader, seq: int) -> int:
    """When an outbound event was stored (ms); 0 if it is gone."""
    row = db.execute(
        "SELECT e.received_ts FROM outbound o JOIN events e USING (event_nid) WHERE o.seq = ?", (seq,)
    ).fetchone()
    return 0 if row is None else int(row[0])


def attempting(tx: Tx, host_nid: int, *, after: int, until: int, edus: Sequence[int], now_ms: int) -> None:
    """Write down what the next transaction holds, before it is sent: PDUs after `after`, up to which the
    server has everything, until `until`; and durable EDUs.

    It needs no end: once the server has it all, nothing is left that it names.
    """
    tx.execute(
        "UPDATE destinations SET cursor = MAX(cursor, ?), attempt_ts = ?, attempt_until = ?, "
        "attempt_edus = ? WHERE host_nid = ?",
        (after, now_ms, until, json.dumps(list(edus)), host_nid),
    )


def waiting(db: Reader, host_nid: int, after: int) -> tuple[int, int]:
    """How many PDUs and durable EDUs wait for a server, counted to a thousand."""
    pdus = db.execute(
        "SELECT COUNT(*) FROM (SELECT 1 FROM outbound o CROSS JOIN host_set_members m "
        "ON m.host_nid = ? AND m.host_set_nid = o.host_set_nid WHERE o.seq > ? LIMIT 1000)",
        (host_nid, after),
    ).fetchone()[0]
    edus = db.execute(
        "SELECT COUNT(*) FROM (SELECT 1 FROM outbound_edus WHERE host_nid = ? LIMIT 1000)", (host_nid,)
    ).fetchone()[0]
    return int(pdus), int(edus)


def delivered(tx: Tx, host: str, *, cursor: int | None, edus: Iterable[int], now_ms: int) -> None:
    """The server has these, or they were given up."""
    tx.execute(
        "UPDATE destinations SET cursor = MAX(cursor, COALESCE(?, cursor)), failing_since = NULL, "
        "retry_at = NULL, backoff_ms = 0, last_success = ?, last_error = NULL WHERE host_nid = ?",
        (cursor, now_ms, intern(tx, host)),
    )
    for seq in edus:
        tx.execute("DELETE FROM outbound_edus WHERE seq = ?", (seq,))


def delivered_to_many(tx: Tx, cursors: Mapping[str, int], now_ms: int) -> None:
    for host, cursor in cursors.items():
        delivered(tx, host, cursor=cursor, edus=(), now_ms=now_ms)


def failed(tx: Tx, host: str, *, now_ms: int, retry_at: int, backoff_ms: int, error: str) -> None:
    tx.execute(
        "UPDATE destinations SET failing_since = COALESCE(failing_since, ?), retry_at = ?, backoff_ms = ?, "
        "last_error = ? WHERE host_nid = ?",
        (now_ms, retry_at, backoff_ms, error[:500], intern(tx, host)),
    )


def heard_from(tx: Tx, host: str) -> None:
    """The server is up: nothing that failed before counts any more."""
    tx.execute(
        "UPDATE destinations SET failing_since = NULL, retry_at = NULL, backoff_ms = 0, last_error = NULL "
        "WHERE host_nid = (SELECT host_nid FROM hosts WHERE host = ?)",
        (host,),
    )


def shares_a_room(db: Reader, host: str) -> bool:
    """Is a user of the server in a room that we are in?"""
    row = db.execute(
        "SELECT 1 FROM hosts h JOIN room_hosts r USING (host_nid) JOIN rooms USING (room_nid) "
        "WHERE h.host = ? AND r.joined > 0 AND rooms.resident = 1 LIMIT 1",
        (host,),
    ).fetchone()
    return row is not None


@dataclass(frozen=True, slots=True)
class Tidying:
    """What may be cleared away, found out in one long read and done in short writes."""

    newest: int
    idle: Sequence[int]
    """host_nids of servers that have all up to `newest`."""
    done: Sequence[tuple[int, int]]
    """Per host set: up to where all of its servers have everything."""
    overflowing: Sequence[int]
    """host_nids of servers with too many durable EDUs waiting."""


def find_tidying(db: Reader) -> Tidying:
    """For `Database.scan`."""
    idle = db.execute(
        "SELECT d.host_nid FROM destinations d WHERE d.cursor < (SELECT MAX(seq) FROM outbound) AND NOT "
        + _HAS_WORK
    ).fetchall()
    done = db.execute(
        "SELECT m.host_set_nid, MIN(d.cursor) FROM host_set_members m JOIN destinations d USING (host_nid) "
        "WHERE m.host_set_nid IN (SELECT DISTINCT host_set_nid FROM outbound) GROUP BY m.host_set_nid"
    ).fetchall()
    overflowing = db.execute(
        "SELECT host_nid FROM outbound_edus GROUP BY host_nid HAVING COUNT(*) > ?", (MAX_WAITING_EDUS,)
    ).fetchall()
    return Tidying(newest(db), [row[0] for row in idle], done, [row[0] for row in overflowing])


def tidy(tx: Tx, found: Tidying) -> None:
    """Move the cursors of servers that nothing waits for to the end; drop what all servers have."""
    for host_nid in found.idle:
        tx.execute(
            "UPDATE destinations SET cursor = ? WHERE host_nid = ? AND cursor < ?",
            (found.newest, host_nid, found.newest),
        )
    for host_set_nid, cursor in found.done:
        tx.execute("DELETE FROM outbound WHERE host_set_nid = ? AND seq <= ?", (host_set_nid, cursor))
    for host_nid in found.overflowing:
        tx.execute(
            "DELETE FROM outbound_edus WHERE host_nid = ? AND seq <= (SELECT seq FROM outbound_edus "
            "WHERE host_nid = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (host_nid, host_nid, MAX_WAITING_EDUS),
        )
    # Sets that no event names any more. Never the newest: its number would be given out again.
    tx.execute(
        "DELETE FROM host_set_members WHERE host_set_nid NOT IN (SELECT host_set_nid FROM outbound) "
        "AND host_set_nid < (SELECT MAX(host_set_nid) FROM host_sets)"
    )
    tx.execute(
        "DELETE FROM host_sets WHERE host_set_nid NOT IN (SELECT host_set_nid FROM outbound) "
        "AND host_set_nid < (SELECT MAX(host_set_nid) FROM host_sets)"
    )
