# SPDX-License-Identifier: Apache-2.0
"""Writing events: many in a few statements, since a statement costs more than what it writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from minihs.matrix import canonical
from minihs.matrix.event import Event
from minihs.store import ids, relations, search
from minihs.store.database import Tx
from minihs.store.events import MAX_INTEGER, Outcome, make_whole, pack_nids
from minihs.store.packing import pack

MAX_TOLD_BYTES = 8192
"""Larger events are not handed to those who read what is new: they would hold many of them in memory."""


class NewEvent(NamedTuple):
    """An event, and what is to be stored with it."""

    event: Event
    outcome: Outcome
    received_ts: int
    reason: str | None = None
    outlier: bool = False
    before_group: int | None = None
    after_group: int | None = None
    topo: int | None = None
    arrival: int | None = None
    version: str | None = None
    """The room version, where it is not that of the room's row."""


_INSERT = (
    "INSERT INTO events (event_nid, room_nid, type, sender, key_nid, membership, depth, ts, received_ts, "
    "outcome, reason, outlier, before_group, after_group, topo, arrival, auth_nids, version) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
)
_INSERT_JSON = "INSERT OR IGNORE INTO event_json (event_nid, json) VALUES (?, ?)"


def insert(tx: Tx, room_nid: int, new: NewEvent) -> int:
    """`insert_all` for one."""
    return insert_all(tx, room_nid, (new,)).nids[0]


class Inserted(NamedTuple):
    """What `insert_all` found out on the way."""

    nids: list[int]
    """The numbers of the events, in the order in which they were given."""
    unheard: set[int]
    """Those of which the database knew nothing before: not even other events named them."""


def insert_all(tx: Tx, room_nid: int, new: Sequence[NewEvent]) -> Inserted:
    """Store events of a room, or give outliers that we had their place.

    An event stored before keeps its outcome if that was "rejected": nothing ever makes it acceptable.
    """
    nids, unheard = ids.intern_and_tell(tx, _named(new))
    here = [nids[each.event.event_id] for each in new]
    held = _held(tx, [nid for nid in here if nid not in unheard])
    firsts: dict[int, NewEvent] = {}
    others: list[tuple[int, NewEvent]] = []
    for nid, each in zip(here, new, strict=True):
        if nid in held or nid in firsts:
            others.append((nid, each))
        else:
            firsts[nid] = each
    keys = ids.intern_keys(tx, [each.event.key for each in new if each.event.key is not None])
    tx.executemany(_INSERT, [_row(room_nid, nid, each, nids, keys) for nid, each in firsts.items()])
    written_as = [(nid, each.event.text or canonical.dumps(each.event.json)) for nid, each in firsts.items()]
    tx.executemany(_INSERT_JSON, [(nid, pack(data)) for nid, data in written_as])
    tx.events.update(
        (nid, firsts[nid].event)
        for nid, data in written_as
        if len(data) <= MAX_TOLD_BYTES and _is_news(firsts[nid])
    )
    written = set(firsts)
    for nid, each in others:
        if _give_place(tx, nid, each, _row(room_nid, nid, each, nids, keys)):
            written.add(nid)
    tx.executemany(
        "INSERT OR IGNORE INTO edges (event_nid, prev_nid) VALUES (?, ?)",
        [
            (nid, nids[prev_id])
            for nid, each in zip(here, new, strict=True)
            if not each.outlier
            for prev_id in each.event.prev_events
        ],
    )
    for nid, each in zip(here, new, strict=True):
        if nid in written and each.topo is not None:
            relations.index(tx, nid, each.event.event_id, each.event.json)
            if each.arrival is not None and each.arrival < 0:
                search.index_history(tx, nid, each.event)
    return Inserted(here, unheard)


def _is_news(new: NewEvent) -> bool:
    """Is it about to be read by clients?"""
    return new.outcome is Outcome.ACCEPTED and new.arrival is not None and new.arrival > 0


def _named(new: Sequence[NewEvent]) -> Iterable[str]:
    """The events themselves, then those that they name."""
    for each in new:
        yield each.event.event_id
    for each in new:
        yield from each.event.auth_events
        if not each.outlier:
            yield from each.event.prev_events


def _held(tx: Tx, nids: Sequence[int]) -> set[int]:
    """Those of the numbers whose event is stored; a number may only be that of an event named by others."""
    statement = "SELECT event_nid FROM events WHERE event_nid IN (...)"
    return {row[0] for row in ids.rows_where_in(tx, statement, nids)}


type _Row = tuple[int | str | bytes | None, ...]


def _row(
    room_nid: int,
    nid: int,
    new: NewEvent,
    nids: Mapping[str, int],
    keys: Mapping[tuple[str, str], int],
) -> _Row:
    event = new.event
    return (
        nid,
        room_nid,
        event.type,
        event.sender,
        None if event.key is None else keys[event.key],
        event.membership,
        min(event.depth, MAX_INTEGER),
        max(-MAX_INTEGER, min(event.origin_server_ts, MAX_INTEGER)),
        new.received_ts,
        int(new.outcome),
        new.reason,
        int(new.outlier),
        new.before_group,
        new.after_group,
        new.topo,
        new.arrival,
        pack_nids(nids[auth_id] for auth_id in event.auth_events),
        new.version,
    )


def _give_place(tx: Tx, nid: int, new: NewEvent, row: _Row) -> bool:
    """An event that we have. False: nothing is to be done about it any more."""
    written = tx.execute(
        _INSERT + "ON CONFLICT (event_nid) DO UPDATE SET outlier = excluded.outlier, "
        "version = excluded.version, before_group = excluded.before_group, "
        "after_group = excluded.after_group, topo = excluded.topo, arrival = excluded.arrival, "
        "outcome = MAX(outcome, excluded.outcome), reason = COALESCE(reason, excluded.reason) "
        "WHERE outlier = 1 AND (excluded.outlier = 0 OR (version IS NOT NULL AND excluded.version IS NULL))",
        row,
    ).rowcount
    if written:
        make_whole(tx, nid, new.event)
    return bool(written)


def connect_all(
    tx: Tx,
    room_nid: int,
    placed: Mapping[int, NewEvent],
    *,
    unheard: Collection[int] = frozenset(),
    tips: Collection[str] = (),
) -> None:
    """Bring the backward extremities up to date for events that were just given their place, by number.

    Need not be looked up: `unheard`, numbers that were made with these events, so that nothing had named
    them; `tips`, events that were forward extremities, so that they are in the timeline.
    """
    nids = ids.intern_events(tx, [prev_id for each in placed.values() for prev_id in each.event.prev_events])
    whole = {nid for nid, each in placed.items() if each.topo is not None}
    whole.update(nids[tip_id] for tip_id in tips if tip_id in nids)
    whole |= _in_timeline(tx, set(nids.values()) - whole)
    named = _backward_extremities(tx, room_nid, [nid for nid in placed if nid not in unheard])
    for nid, each in placed.items():
        follows_whole = all(nids[prev_id] in whole for prev_id in each.event.prev_events)
        if nid in named or nid not in whole or not follows_whole:
            connect(tx, room_nid, nid)


def _in_timeline(tx: Tx, nids: Collection[int]) -> set[int]:
    """Those of the numbers whose event has a place, and was not rejected."""
    statement = "SELECT event_nid FROM events WHERE event_nid IN (...) AND outlier = 0 AND topo IS NOT NULL"
    return {row[0] for row in ids.rows_where_in(tx, statement, nids)}


def _backward_extremities(tx: Tx, room_nid: int, nids: Collection[int]) -> set[int]:
    statement = "SELECT event_nid FROM backward_extremities WHERE event_nid IN (...) AND room_nid = ?"
    return {row[0] for row in ids.rows_where_in(tx, statement, nids, room_nid)}


def connect(tx: Tx, room_nid: int, nid: int) -> None:
    """Bring the backward extremities up to date for an event that was just given its place."""
    named_by = tx.execute(
        "DELETE FROM backward_extremities WHERE room_nid = ? AND event_nid = ? RETURNING successor",
        (room_nid, nid),
    ).fetchall()
    if tx.execute("SELECT topo FROM events WHERE event_nid = ?", (nid,)).fetchone()[0] is None:
        successors = [row[0] for row in named_by]  # rejected: what it hides is before those that name it
    else:
        successors = [nid]
    missing = _missing_before(tx, nid) if successors else []
    for successor in successors:
        tx.executemany(
            "INSERT OR IGNORE INTO backward_extremities VALUES (?, ?, ?)",
            [(room_nid, event_nid, successor) for event_nid in missing],
        )


def _missing_before(tx: Tx, nid: int) -> list[int]:
    """The parents of an event that we lack. Rejected ones are looked through: nobody pages over them."""
    missing: list[int] = []
    seen = {nid}
    stack = [nid]
    while stack and len(seen) < 1000:
        for prev, outlier, topo in tx.execute(
            "SELECT d.prev_nid, e.outlier, e.topo FROM edges d "
            "LEFT JOIN events e ON e.event_nid = d.prev_nid WHERE d.event_nid = ?",
            (stack.pop(),),
        ).fetchall():
            if prev in seen:
                continue
            seen.add(prev)
            if outlier is None or outlier:
                missing.append(prev)
            elif topo is None:
                stack.append(prev)
    return missing
