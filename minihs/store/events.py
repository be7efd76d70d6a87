# SPDX-License-Identifier: Apache-2.0
"""Events: writing them with their edges, reading them back as `Event`s."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from minihs.matrix import canonical
from minihs.matrix.event import Event
from minihs.matrix.hashes import has_right_content_hash, is_same
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.store import ids, relations, search
from minihs.store.database import Reader, Tx
from minihs.store.packing import pack, unpack

MAX_INTEGER = 2**53 - 1


class Outcome(IntEnum):
    """What became of an event that we keep (spec: "Checks performed on receipt of a PDU")."""

    ACCEPTED = 0
    SOFT_FAILED = 1
    """Valid where it stands in the DAG, but not by the current state: not shown, not built upon."""
    REJECTED = 2
    """Against the auth rules: never in any state, never built upon."""


class StoredEvent(NamedTuple):
    """An event with what we know of it."""

    nid: int
    room_nid: int
    event: Event
    outcome: Outcome
    outlier: bool
    before_group: int | None
    after_group: int | None
    topo: int | None
    arrival: int | None
    redacted_by: int | None
    received_ts: int
    reason: str | None


_SELECT = (
    "SELECT i.event_id, COALESCE(e.version, r.version), j.json, e.event_nid, e.room_nid, e.outcome, "
    "e.outlier, e.before_group, e.after_group, e.topo, e.arrival, e.redacted_by, e.received_ts, e.reason "
    "FROM events e JOIN event_ids i USING (event_nid) JOIN rooms r USING (room_nid) "
    "JOIN event_json j USING (event_nid) "
)


def _from_row(row: Sequence[Any]) -> StoredEvent:
    event_id, version_name, packed, nid, room_nid, outcome, outlier, *rest = row
    version = ROOM_VERSIONS[version_name]
    loads = canonical.loads_checked if version.strict_json else canonical.loads
    event = Event.from_store(loads(unpack(packed)), version, event_id)
    return StoredEvent(nid, room_nid, event, Outcome(outcome), bool(outlier), *rest)


def get(db: Reader, event_id: str) -> StoredEvent | None:
    row = db.execute(_SELECT + "WHERE i.event_id = ?", (event_id,)).fetchone()
    return None if row is None else _from_row(row)


def get_many(db: Reader, event_ids: Collection[str]) -> dict[str, StoredEvent]:
    """Those of `event_ids` that we have."""
    rows = ids.rows_where_in(db, _SELECT + "WHERE i.event_id IN (...)", event_ids)
    return {row[0]: _from_row(row) for row in rows}


def get_nids(db: Reader, nids: Collection[int]) -> dict[int, StoredEvent]:
    rows = ids.rows_where_in(db, _SELECT + "WHERE e.event_nid IN (...)", nids)
    return {row[3]: _from_row(row) for row in rows}


def ids_of(db: Reader, nids: Collection[int]) -> dict[int, str]:
    """The event ids behind numbers."""
    return ids.event_ids(db, nids)


def known(db: Reader, event_ids: Collection[str]) -> set[str]:
    """Those of `event_ids` that we hold, outliers and rejected ones included."""
    statement = "SELECT i.event_id FROM event_ids i JOIN events e USING (event_nid) WHERE i.event_id IN (...)"
    return {row[0] for row in ids.rows_where_in(db, statement, event_ids)}


def rejected(db: Reader, event_ids: Collection[str]) -> set[str]:
    statement = (
        "SELECT i.event_id FROM event_ids i JOIN events e USING (event_nid) "
        "WHERE i.event_id IN (...) AND e.outcome = ?"
    )
    return {row[0] for row in ids.rows_where_in(db, statement, event_ids, Outcome.REJECTED.value)}


def is_rejected(db: Reader, event_id: str) -> bool:
    row = db.execute(
        "SELECT e.outcome FROM event_ids i JOIN events e USING (event_nid) WHERE i.event_id = ?", (event_id,)
    ).fetchone()
    return row is not None and row[0] == Outcome.REJECTED


def complete(tx: Tx, event: Event) -> None:
    """An event of the timeline that we have in its redacted form only: this is the whole."""
    nid = ids.intern_event(tx, event.event_id)
    if make_whole(tx, nid, event):
        relations.index(tx, nid, event.event_id, event.json)
        search.index_old(tx, nid, event.json)


def make_whole(tx: Tx, nid: int, event: Event) -> bool:
    """An event may have come in its redacted form, from a server that would not or might not show more. False
    if it did not, or was redacted here.
    """
    row = tx.execute(
        "SELECT json FROM event_json JOIN events USING (event_nid) "
        "WHERE event_nid = ? AND redacted_by IS NULL",
        (nid,),
    ).fetchone()
    if row is None:
        return False
    kept = Event.from_store(canonical.loads(unpack(row[0])), event.version, event.event_id)
    if kept.content == event.content or not has_right_content_hash(event) or has_right_content_hash(kept):
        return False
    if not is_same(kept, event):
        return False
    tx.execute("UPDATE event_json SET json = ? WHERE event_nid = ?", (pack(canonical.dumps(event.json)), nid))
    tx.events[nid] = None
    return True


def move_forward_extremities(tx: Tx, room_nid: int, gone: Iterable[int], come: Iterable[int]) -> None:
    """Some events are forward extremities no more, others have become some."""
    for nid in gone:
        tx.execute("DELETE FROM forward_extremities WHERE room_nid = ? AND event_nid = ?", (room_nid, nid))
    for nid in come:
        tx.execute("INSERT OR IGNORE INTO forward_extremities VALUES (?, ?)", (room_nid, nid))


def is_built_upon(db: Reader, room_nid: int, event_id: str) -> bool:
    """Whether an accepted event of the room's timeline names this one as its parent. (What those of other
    rooms name does not count: anybody could say so of an event that is still to come.)
    """
    return (
        db.execute(
            "SELECT 1 FROM event_ids i JOIN edges d ON d.prev_nid = i.event_nid "
            "JOIN events e ON e.event_nid = d.event_nid "
            "WHERE i.event_id = ? AND e.room_nid = ? AND e.outcome = 0 LIMIT 1",
            (event_id, room_nid),
        ).fetchone()
        is not None
    )


def next_history_place(tx: Tx, room_nid: int) -> int:
    """The `arrival` of the next event of the past: counting down from -1."""
    row = tx.execute(
        "SELECT MIN(arrival) FROM events WHERE room_nid = ? AND topo IS NOT NULL", (room_nid,)
    ).fetchone()
    return min(row[0] or 0, 0) - 1


MAX_GAP_STEP = 10_000
"""How far a gap may move our order along the DAG, whatever depth an event claims."""


def place_after_gap(db: Reader, room_nid: int, depth: int) -> int:
    """The place along the DAG of an event of this depth that comes after all that we have, with as much room
    before it as what we missed will need.
    """
    row = db.execute(
        "SELECT topo, depth FROM events WHERE room_nid = ? AND topo IS NOT NULL ORDER BY topo DESC LIMIT 1",
        (room_nid,),
    ).fetchone()
    if row is None:
        return 1
    return int(row[0]) + max(1, min(depth - int(row[1]), MAX_GAP_STEP))


def redact(tx: Tx, target_nid: int, redaction_nid: int, redacted: Event) -> bool:
    """Replace an event by its redacted form. False if an earlier redaction already did."""
    done = tx.execute(
        "UPDATE events SET redacted_by = ? WHERE event_nid = ? AND redacted_by IS NULL",
        (redaction_nid, target_nid),
    ).rowcount
    if done:
        relations.remove(tx, target_nid)
        search.remove(tx, target_nid)
        tx.execute(
            "UPDATE event_json SET json = ? WHERE event_nid = ?",
            (pack(canonical.dumps(redacted.json)), target_nid),
        )
    return bool(done)


def add_pending_redaction(tx: Tx, target_nid: int, redaction_nid: int) -> None:
    tx.execute("INSERT OR IGNORE INTO pending_redactions VALUES (?, ?)", (target_nid, redaction_nid))


def pending_redactions(db: Reader, target_id: str) -> list[str]:
    """Redactions (event ids) that came before their target."""
    return [
        row[0]
        for row in db.execute(
            "SELECT r.event_id FROM event_ids t JOIN pending_redactions p ON p.target_nid = t.event_nid "
            "JOIN event_ids r ON r.event_nid = p.event_nid WHERE t.event_id = ? ORDER BY p.event_nid",
            (target_id,),
        ).fetchall()
    ]


def pack_nids(nids: Iterable[int]) -> bytes:
    return array("q", nids).tobytes()


def unpack_nids(blob: bytes) -> array[int]:
    packed = array("q")
    packed.frombytes(blob)
    return packed


def auth_chain(db: Reader, nids: Iterable[int]) -> set[int]:
    """All ancestors of the events along auth_events, those themselves not included unless they are
    ancestors.
    """
    seen: set[int] = set()
    front = set(nids)
    while front:
        rows = ids.rows_where_in(db, "SELECT auth_nids FROM events WHERE event_nid IN (...)", front)
        front = {nid for (blob,) in rows for nid in unpack_nids(blob)} - seen
        seen |= front
    return seen
