# SPDX-License-Identifier: Apache-2.0
"""What a room shows of itself to people outside: the few state events that a summary is made of."""

from __future__ import annotations

from minihs.store.reader import Reader


def overview_nids(db: Reader, room_nid: int, types: tuple[str, ...]) -> dict[str, int]:
    """type → event_nid in the current state, under the empty state key."""
    marks = ",".join("?" * len(types))
    rows = db.execute(
        "SELECT k.type, s.event_nid FROM state_keys k JOIN current_state s USING (key_nid) "
        f"WHERE s.room_nid = ? AND k.state_key = '' AND k.type IN ({marks})",
        (room_nid, *types),
    ).fetchall()
    return dict(rows)


def children_nids(db: Reader, room_nid: int, limit: int) -> list[int]:
    """event_nids of the current m.space.child events."""
    rows = db.execute(
        "SELECT s.event_nid FROM current_state s JOIN state_keys k USING (key_nid) "
        "WHERE s.room_nid = ? AND k.type = 'm.space.child' LIMIT ?",
        (room_nid, limit),
    ).fetchall()
    return [row[0] for row in rows]


def joined_count(db: Reader, room_nid: int) -> int:
    row = db.execute("SELECT COALESCE(SUM(joined), 0) FROM room_hosts WHERE room_nid = ?", (room_nid,))
    return int(row.fetchone()[0])


def host_is_invited(db: Reader, room_nid: int, host: str) -> bool:
    row = db.execute(
        "SELECT 1 FROM memberships m JOIN hosts h USING (host_nid) "
        "WHERE m.room_nid = ? AND h.host = ? AND m.membership IN ('invite', 'join') LIMIT 1",
        (room_nid, host),
    ).fetchone()
    return row is not None
