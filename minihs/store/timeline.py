# SPDX-License-Identifier: Apache-2.0
"""Reading events in the two orders of the timeline, and the state at a place of it.

By *arrival*: the order in which clients are told, a live event's `pos`; history fetched later counts down
from -1. By *place*, (topo, arrival): our order along the DAG, in which history is paged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.store.kept import GAPS, STATES, kept
from minihs.store.packing import unpack
from minihs.store.reader import Reader

NEWEST = 2**62
"""Later than anything: an upper bound for topo and arrival."""


class EventRow(NamedTuple):
    """What is known of an event besides its JSON."""

    nid: int
    room_nid: int
    type: str
    sender: str
    key_nid: int | None
    membership: str | None
    ts: int
    before_group: int | None
    after_group: int | None
    topo: int | None
    arrival: int | None
    redacted_by: int | None
    outcome: int


_COLUMNS = (
    "event_nid, room_nid, type, sender, key_nid, membership, ts, before_group, after_group, topo, arrival, "
    "redacted_by, outcome"
)
_SHOWN = "topo IS NOT NULL AND outcome = 0"
"""Events that belong in a timeline: accepted, and with a place in it."""

_LARGEST_PART = 512


def padded(items: Collection[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Placeholders and values for `IN (...)`, in parts whose sizes are powers of two.

    The last value is repeated to fill up, so that few statement texts are made and all of them stay prepared.
    """
    rest = list(items)
    for start in range(0, len(rest), _LARGEST_PART):
        part = rest[start : start + _LARGEST_PART]
        size = 1 << (len(part) - 1).bit_length()
        part.extend([part[-1]] * (size - len(part)))
        yield ",".join("?" * size), part


def _rows(cursor_rows: Iterable[Sequence[Any]]) -> list[EventRow]:
    return [EventRow._make(row) for row in cursor_rows]


# --- by arrival
# ---------------------------------------------------------------------------------------------------


def latest(db: Reader, room_nid: int, after: int, upto: int, limit: int) -> list[EventRow]:
    """The newest events with after < arrival ≤ upto, newest first."""
    return _rows(
        db.execute(
            f"SELECT {_COLUMNS} FROM events INDEXED BY events_by_arrival WHERE room_nid = ? AND {_SHOWN} "
            "AND arrival > ? AND arrival <= ? ORDER BY arrival DESC LIMIT ?",
            (room_nid, after, upto, limit),
        ).fetchall()
    )


def has_arrivals_before(db: Reader, room_nid: int, arrival: int) -> bool:
    row = db.execute(
        "SELECT 1 FROM events INDEXED BY events_by_arrival "
        f"WHERE room_nid = ? AND {_SHOWN} AND arrival < ? LIMIT 1",
        (room_nid, arrival),
    ).fetchone()
    return row is not None


# --- by place
# -----------------------------------------------------------------------------------------------------


def page_back(db: Reader, room_nid: int, topo: int, arrival: int, limit: int) -> list[EventRow]:
    """Events at or before a place, nearest first."""
    return _rows(
        db.execute(
            f"SELECT {_COLUMNS} FROM events INDEXED BY events_by_topo WHERE room_nid = ? AND {_SHOWN} "
            "AND (topo, arrival) <= (?, ?) ORDER BY topo DESC, arrival DESC LIMIT ?",
            (room_nid, topo, arrival, limit),
        ).fetchall()
    )


def page_forward(db: Reader, room_nid: int, topo: int, arrival: int, limit: int) -> list[EventRow]:
    """Events after a place, nearest first."""
    return _rows(
        db.execute(
            f"SELECT {_COLUMNS} FROM events INDEXED BY events_by_topo WHERE room_nid = ? AND {_SHOWN} "
            "AND (topo, arrival) > (?, ?) ORDER BY topo, arrival LIMIT ?",
            (room_nid, topo, arrival, limit),
        ).fetchall()
    )


def place_at_pos(db: Reader, room_nid: int, pos: int) -> tuple[int, int] | None:
    """The furthest place of anything that had arrived by `pos`: all of that is at or before it.

    History does not count, since that may lie anywhere; unless there is nothing else.
    """
    for earliest in (1, -NEWEST):
        row = db.execute(
            "SELECT topo, arrival FROM events INDEXED BY events_by_topo WHERE room_nid = ? "
            "AND topo IS NOT NULL AND arrival >= ? AND arrival <= ? ORDER BY topo DESC, arrival DESC LIMIT 1",
            (room_nid, earliest, pos),
        ).fetchone()
        if row is not None:
            return row[0], row[1]
    return None


_GAP = 1000


def place_before_pos(db: Reader, room_nid: int, pos: int) -> tuple[int, int] | None:
    """The foremost place of what arrived after `pos` (of its first thousand): all of that is at or after it.

    Not the same as `place_at_pos`: what arrives late may belong earlier in the DAG.
    """
    row = db.execute(
        "SELECT topo, arrival FROM (SELECT topo, arrival FROM events INDEXED BY events_by_arrival "
        "WHERE room_nid = ? AND topo IS NOT NULL AND arrival > ? ORDER BY arrival LIMIT ?) "
        "ORDER BY topo, arrival LIMIT 1",
        (room_nid, pos, _GAP),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def gaps(db: Reader, room_nid: int) -> frozenset[int]:
    """Nids of the events that name a parent which we lack: history is missing right before them."""

    def read() -> frozenset[int]:
        statement = "SELECT successor FROM backward_extremities WHERE room_nid = ?"
        return frozenset(row[0] for row in db.execute(statement, (room_nid,)).fetchall())

    return kept(db, GAPS, room_nid, "successors", read)


def gap_between(
    db: Reader, room_nid: int, lowest: tuple[int, int], highest: tuple[int, int], *, earliest: bool = False
) -> tuple[int, int] | None:
    """The place of the latest (or the earliest) event in a range that has a parent which we lack."""
    order = "ASC" if earliest else "DESC"
    row = db.execute(
        "SELECT e.topo, e.arrival FROM backward_extremities b JOIN events e ON e.event_nid = b.successor "
        "WHERE b.room_nid = ? AND e.topo IS NOT NULL AND (e.topo, e.arrival) >= (?, ?) "
        f"AND (e.topo, e.arrival) <= (?, ?) ORDER BY e.topo {order}, e.arrival {order} LIMIT 1",
        (room_nid, *lowest, *highest),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def seamless(rows: Sequence[EventRow], gaps: Collection[int], *, forward: bool) -> list[EventRow]:
    """Of the events after (or before) a place, nearest first: up to where history is missing."""
    found: list[EventRow] = []
    for row in rows:
        if forward and row.nid in gaps:
            break
        found.append(row)
        if not forward and row.nid in gaps:
            break
    return found


# --- single events, and what belongs to them
# ----------------------------------------------------------------------


def rows_of(db: Reader, nids: Collection[int]) -> dict[int, EventRow]:
    found: dict[int, EventRow] = {}
    for marks, part in padded(nids):
        for row in db.execute(f"SELECT {_COLUMNS} FROM events WHERE event_nid IN ({marks})", part).fetchall():
            found[row[0]] = EventRow._make(row)
    return found


def states_before(db: Reader, nids: Collection[int]) -> set[tuple[int, int | None, bool]]:
    """(room_nid, group of the state before, whether it has a place) of events: few, where messages follow one
    another."""
    found: set[tuple[int, int | None, bool]] = set()
    for marks, part in padded(nids):
        found.update(
            db.execute(
                "SELECT DISTINCT room_nid, before_group, topo IS NOT NULL FROM events "
                f"WHERE event_nid IN ({marks})",
                part,
            ).fetchall()
        )
    return found


def by_event_id(db: Reader, room_nid: int, event_id: str) -> EventRow | None:
    """An event of this room, accepted or not."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM events WHERE room_nid = ? "
        "AND event_nid = (SELECT event_nid FROM event_ids WHERE event_id = ?)",
        (room_nid, event_id),
    ).fetchone()
    return None if row is None else EventRow._make(row)


def bodies(db: Reader, nids: Collection[int]) -> dict[int, tuple[str, JsonObject]]:
    """nid → (event id, the PDU as we keep it; redacted if it was redacted)."""
    found: dict[int, tuple[str, JsonObject]] = {}
    for marks, part in padded(nids):
        for nid, event_id, packed in db.execute(
            "SELECT j.event_nid, i.event_id, j.json FROM event_json j JOIN event_ids i USING (event_nid) "
            f"WHERE j.event_nid IN ({marks})",
            part,
        ).fetchall():
            found[nid] = (event_id, _parse(unpack(packed)))
    return found


_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 19
"""The shortest run of digits that may be an integer outside 64 bits, once all digits are made zeros."""


def _parse(data: bytes) -> JsonObject:
    """What we wrote ourselves, read without the checks that strangers' JSON needs; but orjson would make
    floats of the largest integers that old rooms may hold, and refuses those too large for a float."""
    if _LONG_NUMBER in data.translate(_DIGITS):
        exact: JsonObject = canonical.loads(data)
        return exact
    value: JsonObject = orjson.loads(data)
    return value


def txn_ids(db: Reader, nids: Collection[int], user_id: str, device_id: str) -> dict[int, str]:
    """The transaction ids under which this device sent some of these events."""
    found: dict[int, str] = {}
    for marks, part in padded(nids):
        found.update(
            db.execute(
                "SELECT event_nid, txn_id FROM client_txns INDEXED BY client_txns_by_event "
                f"WHERE event_nid IN ({marks}) AND user_id = ? AND device_id = ?",
                [*part, user_id, device_id],
            ).fetchall()
        )
    return found


def unredacted(db: Reader, event_ids: Collection[str]) -> set[str]:
    """Those of these events that we don't have, or that no redaction took effect on."""
    redacted: set[str] = set()
    for marks, part in padded(event_ids):
        redacted.update(
            row[0]
            for row in db.execute(
                "SELECT i.event_id FROM event_ids i JOIN events e USING (event_nid) "
                f"WHERE i.event_id IN ({marks}) AND e.redacted_by IS NOT NULL",
                part,
            ).fetchall()
        )
    return set(event_ids) - redacted


# --- state by position
# --------------------------------------------------------------------------------------------


def state_at_pos(db: Reader, room_nid: int, pos: int) -> int | None:
    """The state group that was current as of `pos`."""
    found = state_and_its_pos(db, room_nid, pos)
    return None if found is None else found[0]


def state_and_its_pos(db: Reader, room_nid: int, pos: int) -> tuple[int, int] | None:
    """The same, and since when it was."""
    if db.kept is None:
        return _state_and_its_pos(db, room_nid, pos)
    newest = kept(db, STATES, room_nid, "newest", lambda: _state_and_its_pos(db, room_nid, NEWEST))
    if newest is None or newest[1] <= pos:
        return newest
    return _state_and_its_pos(db, room_nid, pos)


def _state_and_its_pos(db: Reader, room_nid: int, pos: int) -> tuple[int, int] | None:
    row: tuple[int, int] | None = db.execute(
        "SELECT group_nid, pos FROM room_states WHERE room_nid = ? AND pos <= ? ORDER BY pos DESC LIMIT 1",
        (room_nid, pos),
    ).fetchone()
    return row


def state_keys_of_type(db: Reader, nids: Collection[int], type: str) -> dict[int, str]:
    """Those of these keys that are of `type`: key_nid → state_key."""
    found: dict[int, str] = {}
    for marks, part in padded(nids):
        found.update(
            db.execute(
                f"SELECT key_nid, state_key FROM state_keys WHERE key_nid IN ({marks}) AND type = ?",
                [*part, type],
            ).fetchall()
        )
    return found


def member_keys(db: Reader, user_ids: Collection[str]) -> dict[str, int]:
    """user id → key_nid of ("m.room.member", user id), where there is one."""
    found: dict[str, int] = {}
    for marks, part in padded(user_ids):
        found.update(
            db.execute(
                "SELECT state_key, key_nid FROM state_keys "
                f"WHERE type = 'm.room.member' AND state_key IN ({marks})",
                part,
            ).fetchall()
        )
    return found
