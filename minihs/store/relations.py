# SPDX-License-Identifier: Apache-2.0
"""Which events relate to which: an index over the timeline, written in the same commit as the events.

Only what is shown is in it: accepted, with a place, not redacted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.matrix.relations import REFERENCE, REPLACE, THREAD, relation_of
from minihs.store import ids
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow, padded
from minihs.store.writer import Tx

MAX_BUNDLED = 1000
"""Children of one event and one kind that are looked at to sum them up: the latest."""


class Child(NamedTuple):
    parent_nid: int
    rel_type: str
    nid: int
    whole: bool
    total: int
    """How many of this kind the parent has."""


class Thread(NamedTuple):
    root_nid: int
    topo: int
    """The place of its latest event."""
    arrival: int


def index(tx: Tx, nid: int, event_id: str, pdu: JsonObject) -> None:
    """An event was given its place in the timeline."""
    relation = relation_of(pdu["type"], pdu.get("state_key"), pdu["content"])
    if relation is None or relation.parent_id == event_id:
        return
    tx.execute(
        "INSERT OR REPLACE INTO relations "
        "SELECT event_nid, room_nid, ?, ?, ?, ?, topo, arrival FROM events "
        "WHERE event_nid = ? AND outcome = 0 AND topo IS NOT NULL AND redacted_by IS NULL",
        (
            ids.intern_event(tx, relation.parent_id),
            relation.rel_type,
            relation.key,
            int(relation.whole),
            nid,
        ),
    )


def remove(tx: Tx, nid: int) -> None:
    """The event was redacted."""
    tx.execute("DELETE FROM relations WHERE child_nid = ?", (nid,))


# --- what clients may not send
# ------------------------------------------------------------------------------------


def is_related(db: Reader, room_nid: int, event_id: str) -> bool:
    """Does this event itself relate to another one?"""
    row = db.execute(
        "SELECT 1 FROM event_ids i JOIN relations r ON r.child_nid = i.event_nid "
        "WHERE i.event_id = ? AND r.room_nid = ?",
        (event_id, room_nid),
    ).fetchone()
    return row is not None


def has_annotation(
    db: Reader, room_nid: int, parent_id: str, *, sender: str, type: str, key: str | None
) -> bool:
    """Has this user annotated the event in this way already?"""
    row = db.execute(
        "SELECT 1 FROM event_ids i JOIN relations r ON r.parent_nid = i.event_nid "
        "JOIN events e ON e.event_nid = r.child_nid "
        "WHERE i.event_id = ? AND r.rel_type = 'm.annotation' AND r.room_nid = ? AND r.key IS ? "
        "AND e.sender = ? AND e.type = ? LIMIT 1",
        (parent_id, room_nid, key, sender, type),
    ).fetchone()
    return row is not None


# --- summing up
# ---------------------------------------------------------------------------------------------------


def bundled(db: Reader, parents: Collection[int], *, threads: bool) -> list[Child]:
    """The children of these events that a server sums up, of each parent and kind the latest first."""
    kinds = (REPLACE, REFERENCE, THREAD) if threads else (REPLACE, REFERENCE)
    found: list[Child] = []
    for marks, part in padded(parents):
        found.extend(
            Child(parent, rel_type, nid, bool(whole), total)
            for parent, rel_type, nid, whole, total in db.execute(
                "SELECT parent_nid, rel_type, child_nid, whole, total FROM ("
                "SELECT parent_nid, rel_type, child_nid, whole, "
                "ROW_NUMBER() OVER (PARTITION BY parent_nid, rel_type ORDER BY topo DESC, arrival DESC) "
                "AS place, COUNT(*) OVER (PARTITION BY parent_nid, rel_type) AS total FROM relations "
                f"WHERE parent_nid IN ({marks}) AND rel_type IN ({ids.marks(len(kinds))})) "
                "WHERE place <= ? ORDER BY parent_nid, rel_type, place",
                [*part, *kinds, MAX_BUNDLED],
            ).fetchall()
        )
    return found


def rel_types_of(db: Reader, nids: Collection[int]) -> dict[int, str]:
    """Those of these events that relate to another one: nid → rel_type."""
    found: dict[int, str] = {}
    for marks, part in padded(nids):
        found.update(
            db.execute(
                f"SELECT child_nid, rel_type FROM relations WHERE child_nid IN ({marks})", part
            ).fetchall()
        )
    return found


def threads_with(db: Reader, roots: Collection[int], user_id: str) -> set[int]:
    """Those of these threads in which the user has said something."""
    found: set[int] = set()
    for marks, part in padded(roots):
        found.update(
            row[0]
            for row in db.execute(
                "SELECT DISTINCT r.parent_nid FROM relations r JOIN events e ON e.event_nid = r.child_nid "
                f"WHERE r.parent_nid IN ({marks}) AND r.rel_type = 'm.thread' AND e.sender = ?",
                [*part, user_id],
            ).fetchall()
        )
    return found


def threads_of(db: Reader, nids: Collection[int], hops: int) -> dict[int, int]:
    """Those of these events that are in a thread by way of what they relate to: nid → root.

    An event relates to one other at most, so there is one way to go; `hops` bounds it.
    """
    roots: dict[int, int] = {}
    at = {nid: nid for nid in nids}
    for _ in range(hops):
        found: dict[int, tuple[str, int]] = {}
        for marks, part in padded(set(at.values())):
            for nid, rel_type, parent in db.execute(
                f"SELECT child_nid, rel_type, parent_nid FROM relations WHERE child_nid IN ({marks})", part
            ).fetchall():
                found[nid] = (rel_type, parent)
        ahead: dict[int, int] = {}
        for nid, place in at.items():
            if place not in found:
                continue
            rel_type, parent = found[place]
            if rel_type == THREAD:
                roots[nid] = parent
            else:
                ahead[nid] = parent
        if not ahead:
            break
        at = ahead
    return roots


# --- page by page
# -------------------------------------------------------------------------------------------------


class Query(NamedTuple):
    """Which relations of an event are asked for."""

    room_nid: int
    parent_nid: int
    rel_type: str | None = None
    type: str | None = None
    depth: int = 1
    """Steps from the event to those that relate to it, or to what relates to it, and so on."""


def page(db: Reader, query: Query, place: tuple[int, int], limit: int, *, forward: bool) -> list[EventRow]:
    """Events that relate to one, nearest first: those after the place, or those at and before it."""
    order, compare = ("ASC", ">") if forward else ("DESC", "<=")
    columns = ", ".join(f"e.{name}" for name in _ROW)
    rows = db.execute(
        "WITH RECURSIVE related (nid, step) AS (SELECT :parent, 0 UNION "
        "SELECT r.child_nid, step + 1 FROM related JOIN relations r ON r.parent_nid = related.nid "
        "JOIN events c ON c.event_nid = r.child_nid WHERE step < :depth AND r.room_nid = :room "
        "AND (:rel_type IS NULL OR r.rel_type = :rel_type) AND (:type IS NULL OR c.type = :type)) "
        f"SELECT DISTINCT {columns} FROM related JOIN events e ON e.event_nid = related.nid "
        f"WHERE related.step > 0 AND (e.topo, e.arrival) {compare} (:topo, :arrival) "
        f"ORDER BY e.topo {order}, e.arrival {order} LIMIT :limit",
        {
            "parent": query.parent_nid,
            "room": query.room_nid,
            "rel_type": query.rel_type,
            "type": query.type,
            "depth": query.depth,
            "topo": place[0],
            "arrival": place[1],
            "limit": limit,
        },
    ).fetchall()
    return [EventRow._make(row) for row in rows]


_ROW = ("event_nid", *EventRow._fields[1:])


def threads(
    db: Reader, room_nid: int, place: tuple[int, int], limit: int, *, with_user: str | None
) -> list[Thread]:
    """Threads of a room whose latest event is at or before the place, the latest first.

    `with_user`: only those that the user began or said something in.
    """
    rows = db.execute(
        "SELECT t.parent_nid, t.topo, t.arrival FROM ("
        "SELECT r.parent_nid, r.topo, r.arrival, "
        "ROW_NUMBER() OVER (PARTITION BY r.parent_nid ORDER BY r.topo DESC, r.arrival DESC) AS place "
        "FROM relations r WHERE r.room_nid = :room AND r.rel_type = 'm.thread') t "
        "JOIN events e ON e.event_nid = t.parent_nid "
        "WHERE t.place = 1 AND e.room_nid = :room AND e.topo IS NOT NULL AND e.outcome = 0 "
        "AND NOT EXISTS (SELECT 1 FROM relations own WHERE own.child_nid = t.parent_nid) "
        "AND (t.topo, t.arrival) <= (:topo, :arrival) "
        "AND (:user IS NULL OR e.sender = :user OR EXISTS (SELECT 1 FROM relations c "
        "JOIN events said ON said.event_nid = c.child_nid WHERE c.parent_nid = t.parent_nid "
        "AND c.rel_type = 'm.thread' AND said.sender = :user)) "
        "ORDER BY t.topo DESC, t.arrival DESC LIMIT :limit",
        {"room": room_nid, "user": with_user, "topo": place[0], "arrival": place[1], "limit": limit},
    ).fetchall()
    return [Thread._make(row) for row in rows]
