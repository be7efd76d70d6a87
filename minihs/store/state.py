# SPDX-License-Identifier: Apache-2.0
"""State groups: the state of a room at some point, kept as what changed since a parent group.

A state event costs one small row, a message none. To read a state one goes down the parents to a *snapshot*,
the whole state packed in one blob, and applies what changed on the way. Two things keep the way short:

- A group gets a snapshot when the changes since the last one come to a quarter of the state (64 at least). So
  snapshots cost at most 32 bytes per change, however large the room, and reading is in proportion to the
  state.
- Every 16th group on the way holds a *rollup*: all that changed in the last 16 groups, and a pointer past
  them (`skip`); every 256th one of the last 256, and so on. So a way of thousands of groups is some dozens of
  rows.

A group's number is always above its parent's: to find where two chains meet, step down from the higher number
until both are the same. A rollup may be used for it as long as it does not lead below the other number.

Everywhere `key_nid → event_nid`; None stands for "the key is not in the state".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from minihs.store.reader import ReadConnection, Reader
from minihs.store.state_cache import StateCache
from minihs.store.state_packing import Changes, Snapshot, pack_changes, pack_state, unpack_changes
from minihs.store.writer import Tx

RADIX = 16
"""Groups per rollup; a power of it per rollup of rollups."""

MIN_WEIGHT = 64
"""Changes before which no new snapshot is made."""

MAX_DIFF_ROWS = 1000
"""Rows after which `diff` gives up on the chains and compares the two states; that costs as much."""


class UnknownGroup(LookupError):
    """There is no such state group."""


# Each walk is one statement: outside of a transaction a statement costs its locks, thrice what a row costs.

_DOWN = """
WITH RECURSIVE way (group_nid, lower, hops, changes) AS (
  SELECT group_nid, coalesce(skip, parent), hops, coalesce(rollup, changes)
  FROM state_groups WHERE group_nid = ?
  UNION ALL
  SELECT g.group_nid, coalesce(g.skip, g.parent), g.hops, coalesce(g.rollup, g.changes)
  FROM way JOIN state_groups AS g ON g.group_nid = way.lower WHERE way.hops > 0 LIMIT ?
)
SELECT group_nid, lower, hops, changes FROM way"""
"""From a group towards its snapshot, by the furthest steps."""

_MEET = """
WITH RECURSIVE walk (a, b, stepped, changes) AS (
  SELECT ?, ?, NULL, NULL
  UNION ALL
  SELECT
    CASE WHEN a > b THEN iif(g.skip >= b, g.skip, coalesce(g.parent, 0)) ELSE a END,
    CASE WHEN b > a THEN iif(g.skip >= a, g.skip, coalesce(g.parent, 0)) ELSE b END,
    a > b,
    iif(g.skip >= min(a, b), g.rollup, g.changes)
  FROM walk JOIN state_groups AS g ON g.group_nid = max(a, b) WHERE a != b AND min(a, b) > 0 LIMIT ?
)
SELECT a, b, stepped, changes FROM walk"""
"""Down two chains until they meet, or one has ended (0). `stepped`: 1 if it was the first that took the step.
"""


def new_group(tx: Tx, room_nid: int, parent: int | None, changes: Mapping[int, int | None]) -> int:
    """Store the state of `parent` (None: the empty state) with `changes`; the new group's number.

    With a parent and no changes, that is the parent itself.
    """
    if parent is None:
        state = {key: event for key, event in changes.items() if event is not None}
        return _insert(tx, room_nid, None, None, 0, 0, len(state), None, None, pack_state(state))
    if not changes:
        return parent
    row = tx.execute(
        "SELECT room_nid, hops, weight, room_size FROM state_groups WHERE group_nid = ?", (parent,)
    ).fetchone()
    if row is None or row[0] != room_nid:
        raise UnknownGroup(f"room {room_nid} has no state group {parent}")
    hops, weight, room_size = row[1] + 1, row[2] + len(changes), row[3]
    packed = pack_changes(changes)
    skip, rollup = (None, None) if hops % RADIX else _roll_up(tx, parent, hops, changes)
    enough = max(MIN_WEIGHT, room_size // 4)
    if weight >= 2 * enough or (weight >= enough and rollup is not None):
        state = _apply(read_group(tx, parent), changes)
        return _insert(tx, room_nid, parent, packed, 0, 0, len(state), skip, rollup, pack_state(state))
    return _insert(tx, room_nid, parent, packed, hops, weight, room_size, skip, rollup, None)


def read_group(db: Reader, group: int) -> dict[int, int]:
    """The whole state; the caller's own dict."""
    cache = _cache(db)
    changes: Changes = {}
    state: dict[int, int] | None = None
    for at, hops, packed in _down(db, group):
        state = None if cache is None else cache.states.get(at)
        if state is not None:
            if at == group:
                return state.copy()
            state = state.copy()
            break
        if hops == 0:
            state = _snapshot(db, at, cache).as_dict()
            break
        _add_older(changes, unpack_changes(packed))
    assert state is not None  # noqa: S101 - the way ends at a snapshot
    _apply(state, changes)
    if cache is not None:
        cache.put_state(group, state.copy())
    return state


def lookup(db: Reader, group: int, key_nids: Iterable[int]) -> dict[int, int]:
    """The events at those of `key_nids` that are in the state."""
    cache = _cache(db)
    missing = set(key_nids)
    found: Changes = {}
    if cache is not None:
        cache.find(group, missing, found)
    if missing:
        for at, hops, packed in _down(db, group):
            if cache is not None:
                cache.find(at, missing, found)
            if hops == 0:
                snapshot = _snapshot(db, at, cache)
                found.update((key, snapshot.get(key)) for key in missing)
                break
            changes = unpack_changes(packed)
            for key in missing & changes.keys():
                found[key] = changes[key]
                missing.discard(key)
            if not missing:
                break
        if cache is not None:
            cache.remember(group, found)
    return {key: event for key, event in found.items() if event is not None}


def diff(db: Reader, a: int, b: int) -> dict[int, tuple[int | None, int | None]]:
    """The keys at which `a` and `b` differ, with the event of each; work in proportion to what changed."""
    if a == b:
        return {}
    of_a: Changes = {}
    of_b: Changes = {}
    rows = db.execute(_MEET, (a, b, MAX_DIFF_ROWS)).fetchall()
    at_a, at_b = rows[-1][:2]
    if at_a != at_b:
        return _compare(read_group(db, a), read_group(db, b))
    for _, _, stepped_a, packed in rows[1:]:
        if packed is not None:
            _add_older(of_a if stepped_a else of_b, unpack_changes(packed))
    before = lookup(db, at_a, of_a.keys() ^ of_b.keys())
    differ: dict[int, tuple[int | None, int | None]] = {}
    for key in of_a.keys() | of_b.keys():
        in_a, in_b = of_a.get(key, before.get(key)), of_b.get(key, before.get(key))
        if in_a != in_b:
            differ[key] = in_a, in_b
    return differ


def delete_room_groups(tx: Tx, room_nid: int) -> None:
    """Forget all state groups of a room."""
    tx.execute("DELETE FROM state_groups WHERE room_nid = ?", (room_nid,))


def _down(db: Reader, group: int) -> Iterator[tuple[int, int, bytes]]:
    """(group, hops, changes since the one that comes next) from `group` down to one with a snapshot (hops 0).

    Few rows first: what is looked for is often near, or remembered.
    """
    limit = 4
    while True:
        rows = db.execute(_DOWN, (group, limit)).fetchall()
        if not rows:
            raise UnknownGroup(f"no state group {group}")
        for at, lower, hops, changes in rows:
            yield at, hops, changes
            if hops == 0:
                return
            group = lower
        limit = 64


def _roll_up(tx: Tx, parent: int, hops: int, changes: Mapping[int, int | None]) -> tuple[int, bytes]:
    """For the group `hops` from its snapshot: how far down its rollup leads, and what changed since there."""
    span = RADIX
    while hops % (span * RADIX) == 0:
        span *= RADIX
    merged = dict(changes)
    for at, at_hops, packed in _down(tx, parent):
        if at_hops <= hops - span:
            return at, pack_changes(merged)
        _add_older(merged, unpack_changes(packed))
    raise UnknownGroup(f"the chain of state group {parent} is broken")


def _insert(tx: Tx, *values: object) -> int:
    cursor = tx.execute(
        "INSERT INTO state_groups "
        "(room_nid, parent, changes, hops, weight, room_size, skip, rollup, snapshot) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    assert cursor.lastrowid is not None  # noqa: S101 - it was an INSERT
    return cursor.lastrowid


def _snapshot(db: Reader, group: int, cache: StateCache | None) -> Snapshot:
    known = None if cache is None else cache.snapshots.get(group)
    if known is not None:
        return known
    row = db.execute("SELECT snapshot FROM state_groups WHERE group_nid = ?", (group,)).fetchone()
    snapshot = Snapshot(row[0])
    if cache is not None:
        cache.snapshots.put(group, snapshot, snapshot.cost)
    return snapshot


def _apply(state: dict[int, int], changes: Mapping[int, int | None]) -> dict[int, int]:
    for key, event in changes.items():
        if event is None:
            state.pop(key, None)
        else:
            state[key] = event
    return state


def _add_older(changes: Changes, older: Changes) -> None:
    for key, event in older.items():
        changes.setdefault(key, event)


def _compare(a: dict[int, int], b: dict[int, int]) -> dict[int, tuple[int | None, int | None]]:
    return {key: (a.get(key), b.get(key)) for key, _ in a.items() ^ b.items()}


def _cache(db: Reader) -> StateCache | None:
    """Only readers have one: a write sees groups that may yet be rolled back."""
    return db.state_cache if isinstance(db, ReadConnection) else None
