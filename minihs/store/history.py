# SPDX-License-Identifier: Apache-2.0
"""Walking a room's DAG backwards along prev_events."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from minihs.store import ids
from minihs.store.database import Reader
from minihs.store.events import Outcome

MAX_PASSED = 1_000
"""Rejected events that one walk passes over."""

MAX_AHEAD = 1_000
"""Rows that one walk reads ahead, in vain if the DAG is made for it."""


def walk_back(db: Reader, room_nid: int, event_ids: Collection[str], limit: int) -> list[int]:
    """Numbers of timeline events at and before the given ones, the newest (along the DAG) first."""
    start = list(ids.event_nids(db, event_ids).values())
    return _walk(db, room_nid, start, limit, stop=frozenset(), min_depth=None)


def between(
    db: Reader,
    room_nid: int,
    *,
    earliest: Collection[str],
    latest: Collection[str],
    limit: int,
    min_depth: int,
) -> list[int]:
    """Numbers of events before `latest` that are not `earliest` nor before them by way of them, newest
    first.
    """
    stop = frozenset(ids.event_nids(db, earliest).values())
    heads = list(ids.event_nids(db, latest).values())
    start = [nid for nid in _parents(db, heads) if nid not in stop]
    return _walk(db, room_nid, start, limit, stop=stop | frozenset(heads), min_depth=min_depth)


def nearest(db: Reader, room_nid: int, ts: int, *, forwards: bool, limit: int) -> list[int]:
    """Numbers of the events whose origin_server_ts is nearest, from `ts` on in one direction, it included.

    Goes through all events of the room: for a scan.
    """
    compare, order = (">=", "ASC") if forwards else ("<=", "DESC")
    return [
        row[0]
        for row in db.execute(
            "SELECT event_nid FROM events WHERE room_nid = ? AND topo IS NOT NULL AND outcome = 0 "
            f"AND ts {compare} ? ORDER BY ts {order}, topo {order}, arrival {order} LIMIT ?",
            (room_nid, ts, limit),
        ).fetchall()
    ]


def _walk(
    db: Reader,
    room_nid: int,
    start: Collection[int],
    limit: int,
    *,
    stop: frozenset[int],
    min_depth: int | None,
) -> list[int]:
    """Events that were rejected are not found, but what is before them is."""
    found: list[int] = []
    seen: set[int] = set(stop)
    heap: list[tuple[int, int, int]] = []
    graph = _ReadAhead(db, room_nid)
    passed = 0

    def push(nids: Collection[int]) -> None:
        nonlocal passed
        new = [nid for nid in nids if nid not in seen]
        while new and passed <= MAX_PASSED:
            seen.update(new)
            rejected: list[int] = []
            for nid, topo, arrival, depth, outcome in graph.events(new):
                if outcome == Outcome.REJECTED:
                    rejected.append(nid)
                elif topo is not None and (min_depth is None or depth >= min_depth):
                    heapq.heappush(heap, (-topo, -(arrival or 0), nid))
            if not rejected:
                break
            passed += len(rejected)
            new = [nid for nid in _parents(db, rejected) if nid not in seen]

    push(start)
    while heap and len(found) < limit:
        topo, arrival, nid = heapq.heappop(heap)
        found.append(nid)
        if len(found) < limit:
            push(graph.parents(nid, -topo, -arrival, ahead=limit - len(found)))
    return found


type _Row = tuple[int, int | None, int | None, int, int]
"""event_nid, topo, arrival, depth, outcome."""


class _ReadAhead:
    """A room's DAG for one walk. What is before an event in it mostly has the places before its own, so
    those are read with it, in one statement instead of two for each."""

    def __init__(self, db: Reader, room_nid: int) -> None:
        self._db = db
        self._room_nid = room_nid
        self._rows: dict[int, _Row] = {}
        self._parents: dict[int, list[int]] = {}
        self._spare = MAX_AHEAD

    def events(self, nids: Collection[int]) -> list[_Row]:
        """Those of the events that we hold."""
        rows = self._rows
        if missing := [nid for nid in nids if nid not in rows]:
            for part in ids.chunks(missing):
                for row in self._db.execute(
                    "SELECT event_nid, topo, arrival, depth, outcome FROM events WHERE room_nid = ? "
                    f"AND event_nid IN ({ids.marks(len(part))})",
                    (self._room_nid, *part),
                ).fetchall():
                    rows[row[0]] = row
        return [rows[nid] for nid in nids if nid in rows]

    def parents(self, nid: int, topo: int, arrival: int, *, ahead: int) -> list[int]:
        """The parents of an event at that place. `ahead`: so many more will be asked for, at most."""
        found = self._parents.get(nid)
        if found is None:
            self._read(topo, arrival, 1 + min(ahead, self._spare))
            found = self._parents.get(nid)
        return _parents(self._db, [nid]) if found is None else found

    def _read(self, topo: int, arrival: int, count: int) -> None:
        """That many events from a place on backwards, and their parents."""
        rows = self._db.execute(
            "SELECT e.event_nid, e.topo, e.arrival, e.depth, e.outcome, d.prev_nid FROM "
            "(SELECT event_nid, topo, arrival, depth, outcome FROM events INDEXED BY events_by_topo "
            "WHERE room_nid = ? AND topo IS NOT NULL AND (topo, arrival) <= (?, ?) "
            "ORDER BY topo DESC, arrival DESC LIMIT ?) e LEFT JOIN edges d USING (event_nid)",
            (self._room_nid, topo, arrival, count),
        ).fetchall()
        self._spare = max(0, self._spare - len(rows))
        read: dict[int, list[int]] = {}
        for nid, topo, arrival, depth, outcome, prev_nid in rows:
            self._rows[nid] = (nid, topo, arrival, depth, outcome)
            parents = read.setdefault(nid, [])
            if prev_nid is not None:
                parents.append(prev_nid)
        self._parents |= read


def _parents(db: Reader, nids: Sequence[int]) -> list[int]:
    parents: list[int] = []
    for part in ids.chunks(nids):
        parents.extend(
            row[0]
            for row in db.execute(
                f"SELECT prev_nid FROM edges WHERE event_nid IN ({ids.marks(len(part))})", part
            ).fetchall()
        )
    return list(dict.fromkeys(parents))
