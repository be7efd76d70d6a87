# SPDX-License-Identifier: Apache-2.0
"""Rooms of which only part of the state is known: joined by an answer that left the members out.

What is the room's is in the room's tables as ever, its state groups lacking members. Here is which rooms that
concerns, which events have their place by such a state, and how far getting the rest has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minihs.store import ids
from minihs.store.database import Reader, Tx
from minihs.store.kept import ANY, PARTIAL_JOINS, kept


@dataclass(frozen=True, slots=True)
class PartialJoin:
    """A row of `partial_joins` that is not completed."""

    room_nid: int
    event_nid: int
    host: str
    joined_pos: int
    full_group: int | None
    attempts: int
    retry_at: int


_SELECT = (
    "SELECT room_nid, event_nid, host, joined_pos, full_group, attempts, retry_at FROM partial_joins "
    "WHERE completed_pos IS NULL "
)


def get(db: Reader, room_nid: int) -> PartialJoin | None:
    row = db.execute(_SELECT + "AND room_nid = ?", (room_nid,)).fetchone()
    return None if row is None else PartialJoin(*row)


def is_partial(db: Reader, room_nid: int) -> bool:
    return get(db, room_nid) is not None


def waiting(db: Reader) -> list[tuple[str, int]]:
    """(room id, time in ms at which it is due) of every room whose members are missing."""
    return list(
        db.execute(
            "SELECT room_id, retry_at FROM partial_joins JOIN rooms USING (room_nid) "
            "WHERE completed_pos IS NULL ORDER BY joined_pos"
        ).fetchall()
    )


def since(db: Reader, pos: int) -> dict[int, int | None]:
    """room_nid → when it was completed (None: not yet), of the rooms that were partial after `pos`."""
    if kept(db, PARTIAL_JOINS, ANY, "last", lambda: _last_completed(db)) <= pos:
        return {}
    return dict(
        db.execute(
            "SELECT room_nid, completed_pos FROM partial_joins "
            "WHERE completed_pos IS NULL OR completed_pos > ?",
            (pos,),
        ).fetchall()
    )


def _last_completed(db: Reader) -> int:
    """When the last room was completed; none was ever: 0; one is not: later than anything."""
    statement = "SELECT COALESCE(MAX(COALESCE(completed_pos, ?)), 0) FROM partial_joins"
    return int(db.execute(statement, (2**62,)).fetchone()[0])


def of_room(db: Reader, room_nid: int) -> dict[int, int | None]:
    """The same of one room, whenever that was."""
    return dict(
        db.execute(
            "SELECT room_nid, completed_pos FROM partial_joins WHERE room_nid = ?", (room_nid,)
        ).fetchall()
    )


def begin(tx: Tx, room_nid: int, event_nid: int, host: str, joined_pos: int) -> None:
    """We are in the room by this join. Wakes "partial"."""
    abandon(tx, room_nid)
    tx.execute(
        "INSERT INTO partial_joins (room_nid, event_nid, host, joined_pos) VALUES (?, ?, ?, ?)",
        (room_nid, event_nid, host, joined_pos),
    )
    add_event(tx, room_nid, event_nid)
    tx.wake("partial")


def abandon(tx: Tx, room_nid: int) -> None:
    """We left, or join anew. Which events have no whole state stays remembered."""
    if tx.execute("DELETE FROM partial_joins WHERE room_nid = ?", (room_nid,)).rowcount:
        tx.wake("partial")


def add_event(tx: Tx, room_nid: int, event_nid: int) -> None:
    tx.execute(
        "INSERT OR IGNORE INTO partial_events (room_nid, event_nid) VALUES (?, ?)", (room_nid, event_nid)
    )


def events_since(db: Reader, room_nid: int, event_nid: int) -> list[int]:
    """The nids of the events that came after this join, itself not included, in that order."""
    return [
        row[0]
        for row in db.execute(
            "SELECT event_nid FROM partial_events WHERE room_nid = ? "
            "AND seq > (SELECT seq FROM partial_events WHERE event_nid = ?) ORDER BY seq",
            (room_nid, event_nid),
        ).fetchall()
    ]


def count_since(db: Reader, room_nid: int, event_nid: int) -> int:
    """How many `events_since` gives."""
    row = db.execute(
        "SELECT COUNT(*) FROM partial_events WHERE room_nid = ? "
        "AND seq > (SELECT seq FROM partial_events WHERE event_nid = ?)",
        (room_nid, event_nid),
    ).fetchone()
    return int(row[0])


def left_behind(db: Reader, room_nid: int, event_nid: int | None) -> frozenset[str]:
    """Event ids of earlier stays, whose state will never be whole. `event_nid`: the join of this one."""
    rows = db.execute(
        "SELECT i.event_id FROM partial_events p JOIN event_ids i USING (event_nid) WHERE p.room_nid = ? "
        "AND p.seq < COALESCE((SELECT seq FROM partial_events WHERE event_nid = ?), ?)",
        (room_nid, event_nid, 2**62),
    ).fetchall()
    return frozenset(row[0] for row in rows)


def has_whole_state(db: Reader, event_nid: int) -> bool:
    """Is the state at this event, as far as it has one here, all there?"""
    row = db.execute("SELECT 1 FROM partial_events WHERE event_nid = ?", (event_nid,)).fetchone()
    return row is None


def set_full(tx: Tx, room_nid: int, full_group: int) -> None:
    """The whole state before the join is here."""
    tx.execute("UPDATE partial_joins SET full_group = ? WHERE room_nid = ?", (full_group, room_nid))


def failed(tx: Tx, room_nid: int, retry_at: int) -> None:
    tx.execute(
        "UPDATE partial_joins SET attempts = attempts + 1, retry_at = ? "
        "WHERE room_nid = ? AND completed_pos IS NULL",
        (retry_at, room_nid),
    )


def complete(tx: Tx, room_nid: int, pos: int, event_nids: Iterable[int]) -> None:
    """The state at all these events is whole. Wakes "partial"."""
    tx.execute("UPDATE partial_joins SET completed_pos = ? WHERE room_nid = ?", (pos, room_nid))
    tx.executemany("DELETE FROM partial_events WHERE event_nid = ?", [(nid,) for nid in event_nids])
    tx.wake("partial")


def presume_hosts(tx: Tx, room_nid: int, hosts: Iterable[str]) -> None:
    """These servers are said to be in the room. Until its members are known each counts as one of them."""
    tx.executemany(
        "INSERT OR IGNORE INTO room_hosts (room_nid, host_nid, joined) VALUES (?, ?, 1)",
        [(room_nid, ids.intern_host(tx, host)) for host in hosts],
    )


def count_hosts(tx: Tx, room_nid: int) -> None:
    """All members are known: a server is in the room if one of them is joined."""
    joined = tx.execute(
        "SELECT COUNT(*), room_nid, host_nid FROM memberships "
        "WHERE room_nid = ? AND membership = 'join' GROUP BY host_nid",
        (room_nid,),
    ).fetchall()
    tx.execute("UPDATE room_hosts SET joined = 0 WHERE room_nid = ?", (room_nid,))
    tx.executemany("UPDATE room_hosts SET joined = ? WHERE room_nid = ? AND host_nid = ?", joined)
