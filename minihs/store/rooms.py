# SPDX-License-Identifier: Apache-2.0
"""Rooms as such: their row, forward and backward extremities, who resides in them."""

from __future__ import annotations

from typing import NamedTuple

from minihs.store import ids, search
from minihs.store.database import Reader, Tx


class Room(NamedTuple):
    """A row of `rooms`."""

    room_nid: int
    room_id: str
    version: str | None
    state_group: int | None
    resident: bool
    published: bool
    partial: bool = False
    """We are in it, and of its state only part is known yet: members are missing (`store.partial`)."""


def get(db: Reader, room_id: str) -> Room | None:
    row = db.execute(
        "SELECT room_nid, room_id, version, state_group, resident, published, EXISTS (SELECT 1 "
        "FROM partial_joins p WHERE p.room_nid = rooms.room_nid AND p.completed_pos IS NULL) "
        "FROM rooms WHERE room_id = ?",
        (room_id,),
    ).fetchone()
    if row is None:
        return None
    return Room(row[0], row[1], row[2], row[3], *map(bool, row[4:]))


def room_nid(db: Reader, room_id: str) -> int | None:
    row = db.execute("SELECT room_nid FROM rooms WHERE room_id = ?", (room_id,)).fetchone()
    return None if row is None else int(row[0])


def room_ids(db: Reader, nids: list[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for part in ids.chunks(nids):
        found.update(
            db.execute(
                f"SELECT room_nid, room_id FROM rooms WHERE room_nid IN ({ids.marks(len(part))})", part
            ).fetchall()
        )
    return found


def intern(tx: Tx, room_id: str, version: str | None) -> int:
    """The room's number, its row made if we never heard of it; a version once known is kept."""
    tx.execute(
        "INSERT INTO rooms (room_id, version) VALUES (?, ?) "
        "ON CONFLICT (room_id) DO UPDATE SET version = COALESCE(version, excluded.version)",
        (room_id, version),
    )
    row = tx.execute("SELECT room_nid FROM rooms WHERE room_id = ?", (room_id,)).fetchone()
    return int(row[0])


def version(db: Reader, room_nid: int) -> str | None:
    row = db.execute("SELECT version FROM rooms WHERE room_nid = ?", (room_nid,)).fetchone()
    return None if row is None else row[0]


def settle_version(tx: Tx, room_nid: int, version: str) -> None:
    """We are joining, so this is the room's version, whatever an invite claimed before.

    What was kept out of band keeps the version that it was understood by.
    """
    tx.execute(
        "UPDATE events SET version = (SELECT version FROM rooms WHERE room_nid = ?) "
        "WHERE room_nid = ? AND version IS NULL "
        "AND (SELECT version FROM rooms WHERE room_nid = ?) IS NOT ?",
        (room_nid, room_nid, room_nid, version),
    )
    tx.execute("UPDATE rooms SET version = ? WHERE room_nid = ?", (version, room_nid))


def set_resident(tx: Tx, room_nid: int, resident: bool) -> None:
    tx.execute("UPDATE rooms SET resident = ? WHERE room_nid = ?", (int(resident), room_nid))


def set_published(tx: Tx, room_nid: int, published: bool) -> None:
    tx.execute("UPDATE rooms SET published = ? WHERE room_nid = ?", (int(published), room_nid))


def forward_extremities(db: Reader, room_nid: int) -> list[tuple[int, str, int, int]]:
    """(event_nid, event_id, topo, after_group) of each."""
    return list(
        db.execute(
            "SELECT e.event_nid, i.event_id, e.topo, e.after_group FROM forward_extremities f "
            "JOIN events e USING (event_nid) JOIN event_ids i USING (event_nid) "
            "WHERE f.room_nid = ? ORDER BY e.event_nid",
            (room_nid,),
        ).fetchall()
    )


def came_in_by(tx: Tx, room_nid: int, event_nid: int) -> None:
    """Note the event by which we came into a room through another server."""
    tx.execute("UPDATE rooms SET came_in = ? WHERE room_nid = ?", (event_nid, room_nid))


def came_in_at(db: Reader, room_nid: int) -> int:
    """The depth of that event; 0 for a room that was made here."""
    row = db.execute(
        "SELECT e.depth FROM rooms r JOIN events e ON e.event_nid = r.came_in WHERE r.room_nid = ?",
        (room_nid,),
    ).fetchone()
    return 0 if row is None else int(row[0])


def backward_extremities(db: Reader, room_nid: int, limit: int = 200) -> list[tuple[str, int, int]]:
    """(missing event id, topo and nid of an event that names it), those nearest to the present first."""
    return list(
        db.execute(
            "SELECT i.event_id, MAX(e.topo), e.event_nid FROM backward_extremities b "
            "JOIN events e ON e.event_nid = b.successor JOIN event_ids i ON i.event_nid = b.event_nid "
            "WHERE b.room_nid = ? GROUP BY b.event_nid ORDER BY MAX(e.topo) DESC LIMIT ?",
            (room_nid, limit),
        ).fetchall()
    )


def places_naming(db: Reader, room_nid: int) -> dict[str, int]:
    """For each missing event the lowest topo of those that name it as their parent."""
    return dict(
        db.execute(
            "SELECT i.event_id, MIN(e.topo) FROM backward_extremities b "
            "JOIN events e ON e.event_nid = b.successor JOIN event_ids i ON i.event_nid = b.event_nid "
            "WHERE b.room_nid = ? GROUP BY b.event_nid",
            (room_nid,),
        ).fetchall()
    )


def pass_over(tx: Tx, room_nid: int, event_id: str) -> None:
    """Nobody is asked for this missing event any more."""
    tx.execute(
        "DELETE FROM backward_extremities WHERE room_nid = ? "
        "AND event_nid = (SELECT event_nid FROM event_ids WHERE event_id = ?)",
        (room_nid, event_id),
    )


def gap_ends(db: Reader, room_nid: int) -> list[tuple[int, int]]:
    """(topo, depth) of each event that names a parent which we lack."""
    return list(
        db.execute(
            "SELECT e.topo, e.depth FROM backward_extremities b JOIN events e ON e.event_nid = b.successor "
            "WHERE b.room_nid = ? AND e.topo IS NOT NULL",
            (room_nid,),
        ).fetchall()
    )


def hosts(db: Reader, room_nid: int) -> list[str]:
    """Servers with a joined user, by the current state; the one with most users first."""
    return [
        row[0]
        for row in db.execute(
            "SELECT h.host FROM room_hosts r JOIN hosts h USING (host_nid) "
            "WHERE r.room_nid = ? AND r.joined > 0 ORDER BY r.joined DESC, h.host",
            (room_nid,),
        ).fetchall()
    ]


def has_host(db: Reader, room_nid: int, host: str) -> bool:
    return (
        db.execute(
            "SELECT 1 FROM room_hosts r JOIN hosts h USING (host_nid) "
            "WHERE r.room_nid = ? AND h.host = ? AND r.joined > 0",
            (room_nid, host),
        ).fetchone()
        is not None
    )


def purge(tx: Tx, room_nid: int) -> None:
    """Forget all of a room; dependent rows go with it."""
    search.remove_room(tx, room_nid)
    tx.execute("DELETE FROM rooms WHERE room_nid = ?", (room_nid,))
