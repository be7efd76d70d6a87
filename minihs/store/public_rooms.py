# SPDX-License-Identifier: Apache-2.0
"""The rooms in our published directory, and the state by which they are shown."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from minihs.store.reader import Reader
from minihs.store.timeline import padded


class PublicRoom(NamedTuple):
    room_nid: int
    room_id: str
    joined: int


def published(db: Reader) -> list[PublicRoom]:
    """Rooms in the directory that somebody is in, the largest first."""
    return [
        PublicRoom._make(row)
        for row in db.execute(
            "SELECT r.room_nid, r.room_id, "
            "(SELECT COALESCE(SUM(joined), 0) FROM room_hosts h WHERE h.room_nid = r.room_nid) AS joined "
            "FROM rooms r WHERE r.published = 1 AND r.resident = 1 ORDER BY joined DESC, r.room_id"
        ).fetchall()
    ]


def state_events(db: Reader, room_nids: Collection[int], types: Collection[str]) -> dict[int, dict[str, int]]:
    """room_nid → type → event_nid, of the current state with an empty state key."""
    found: dict[int, dict[str, int]] = {nid: {} for nid in room_nids}
    type_marks = ",".join("?" * len(types))
    for marks, part in padded(room_nids):
        for room_nid, type, event_nid in db.execute(
            "SELECT s.room_nid, k.type, s.event_nid FROM state_keys k JOIN current_state s USING (key_nid) "
            f"WHERE k.type IN ({type_marks}) AND k.state_key = '' AND s.room_nid IN ({marks})",
            [*types, *part],
        ).fetchall():
            found[room_nid][type] = event_nid
    return found


def is_published(db: Reader, room_id: str) -> bool | None:
    """None: no such room here."""
    row = db.execute("SELECT published FROM rooms WHERE room_id = ? AND resident = 1", (room_id,)).fetchone()
    return None if row is None else bool(row[0])
