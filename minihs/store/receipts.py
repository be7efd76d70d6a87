# SPDX-License-Identifier: Apache-2.0
"""Receipts: up to where users have read rooms and threads (client-server-api, "Receipts")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from minihs.store.database import Reader, Tx
from minihs.store.kept import RECEIPTS, is_unwritten, kept

READ = "m.read"
READ_PRIVATE = "m.read.private"

UNTHREADED = ""
MAIN = "main"

MAX_THREADS = 500
"""Threads in which one user may have a receipt of one kind in one room: other servers name them freely."""


class Receipt(NamedTuple):
    user_id: str
    kind: str
    thread: str
    """UNTHREADED, MAIN or the event id of a thread's root."""
    event_id: str
    ts: int


def put(tx: Tx, room_nid: int, room_id: str, receipt: Receipt) -> bool:
    """Store a receipt and tell clients. False if it points to an earlier place than the one we have.

    Between events that we know, place along the DAG decides; what we don't know counts as newer.
    """
    user_id, kind, thread, event_id, ts = receipt
    row = tx.execute(
        "SELECT event_id FROM receipts WHERE room_nid = ? AND user_id = ? AND kind = ? AND thread = ?",
        (room_nid, user_id, kind, thread),
    ).fetchone()
    if row is not None:
        if row[0] == event_id:
            return False
        was, now = place(tx, room_nid, row[0]), place(tx, room_nid, event_id)
        if was is not None and now is not None and now < was:
            return False
    elif thread not in (UNTHREADED, MAIN) and _threads(tx, room_nid, user_id, kind) >= MAX_THREADS:
        return False
    tx.execute(
        "INSERT INTO receipts (room_nid, user_id, kind, thread, event_id, ts, pos) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (room_nid, user_id, kind, thread) DO UPDATE SET "
        "event_id = excluded.event_id, ts = excluded.ts, pos = excluded.pos",
        (room_nid, user_id, kind, thread, event_id, ts, tx.next_pos()),
    )
    tx.wake(f"room:{room_id}")
    return True


def place(db: Reader, room_nid: int, event_id: str) -> tuple[int, int] | None:
    """Where an event stands in the room's timeline; None: not there."""
    row = db.execute(
        "SELECT topo, arrival FROM events "
        "WHERE event_nid = (SELECT event_nid FROM event_ids WHERE event_id = ?) "
        "AND room_nid = ? AND topo IS NOT NULL",
        (event_id, room_nid),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def changed(db: Reader, room_nid: int, since: int, upto: int, limit: int) -> list[Receipt]:
    """Receipts of a room last moved in since < pos ≤ upto; of more than `limit` the newest."""
    if is_unwritten(db, RECEIPTS, room_nid, since):
        return []
    return [
        Receipt._make(row)
        for row in db.execute(
            "SELECT user_id, kind, thread, event_id, ts FROM receipts INDEXED BY receipts_by_pos "
            "WHERE room_nid = ? AND pos > ? AND pos <= ? ORDER BY pos DESC LIMIT ?",
            (room_nid, since, upto, limit),
        ).fetchall()
    ]


def of_user(db: Reader, room_nid: int, user_id: str) -> list[Receipt]:
    """All receipts of one user in a room."""
    return [
        Receipt._make(row)
        for row in db.execute(
            "SELECT user_id, kind, thread, event_id, ts FROM receipts WHERE room_nid = ? AND user_id = ?",
            (room_nid, user_id),
        ).fetchall()
    ]


@dataclass(frozen=True, slots=True)
class _Read:
    upto: Mapping[str, int]
    is_final: bool
    """All the events are here; none can come that would change anything."""

    def __len__(self) -> int:
        return len(self.upto)


def read_upto(db: Reader, room_nid: int, user_id: str) -> Mapping[str, int]:
    """thread (UNTHREADED too) → arrival of the furthest event that the user has read there."""

    def read() -> _Read:
        rows = db.execute(
            "SELECT r.thread, MAX(e.arrival), COUNT(*) = COUNT(e.arrival) FROM receipts r "
            "LEFT JOIN event_ids i USING (event_id) LEFT JOIN events e "
            "ON e.event_nid = i.event_nid AND e.room_nid = r.room_nid AND e.topo IS NOT NULL "
            "WHERE r.room_nid = ? AND r.user_id = ? GROUP BY r.thread",
            (room_nid, user_id),
        ).fetchall()
        upto = {thread: arrival for thread, arrival, _ in rows if arrival is not None}
        return _Read(upto, all(is_final for *_, is_final in rows))

    return kept(db, RECEIPTS, room_nid, user_id, read, only_if=lambda found: found.is_final).upto


def _threads(db: Reader, room_nid: int, user_id: str, kind: str) -> int:
    row = db.execute(
        "SELECT COUNT(*) FROM receipts WHERE room_nid = ? AND user_id = ? AND kind = ?",
        (room_nid, user_id, kind),
    ).fetchone()
    return int(row[0])
