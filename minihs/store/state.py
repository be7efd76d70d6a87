# SPDX-License-Identifier: Apache-2.0
"""State groups: the state of a room at some point, kept as what changed since a parent group.

A group is a parent and the keys that changed; now and then a group also holds a packed snapshot of the whole state.
So a state event costs one row, a message none, and reading walks at most SNAPSHOT_AFTER changes. A group's number is
always above its parent's: two chains meet when one keeps stepping down from the higher of the two numbers.

All is `key_nid -> event_nid`; None stands for "the key is not in the state".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minihs.store.database import Reader, Tx
from minihs.store.group_cache import GroupCache
from minihs.store.reader import ReadConnection
from minihs.store.snapshots import pack, unpack

SNAPSHOT_AFTER = 1000
"""Changes along the parents after which a group gets a snapshot."""

_CHAIN = """
WITH RECURSIVE chain (step, group_nid, parent, hops) AS (
  SELECT 0, group_nid, parent, hops FROM state_groups WHERE group_nid = ?
  UNION ALL
  SELECT step + 1, up.group_nid, up.parent, up.hops
  FROM chain JOIN state_groups AS up ON up.group_nid = chain.parent WHERE chain.hops > 0
)"""

_MEET = """
WITH RECURSIVE walk (a, b) AS (
  SELECT ?, ?
  UNION ALL
  SELECT CASE WHEN a > b THEN (SELECT parent FROM state_groups WHERE group_nid = a) ELSE a END,
         CASE WHEN b > a THEN (SELECT parent FROM state_groups WHERE group_nid = b) ELSE b END
  FROM walk WHERE a != b
)
SELECT a, b FROM walk"""


class UnknownGroup(LookupError):
    """There is no such state group."""


def new_group(tx: Tx, room_nid: int, parent: int | None, changes: Mapping[int, int | None]) -> int:
    """Store the state of `parent` (None: the empty state) with `changes`; the new group's number.

    With a parent and no changes, that is the parent itself.
    """
    if parent is None:
        state = {key: event for key, event in changes.items() if event is not None}
        return _insert(tx, room_nid, None, 0, pack(state))
    if not changes:
        return parent
    row = tx.execute("SELECT hops FROM state_groups WHERE group_nid = ?", (parent,)).fetchone()
    if row is None:
        raise UnknownGroup(parent)
    hops, snapshot = row[0] + len(changes), None
    if hops > SNAPSHOT_AFTER:
        hops, snapshot = 0, pack(_changed(read_group(tx, parent), changes.items()))
    group = _insert(tx, room_nid, parent, hops, snapshot)
    tx.executemany(
        "INSERT INTO state_deltas (group_nid, key_nid, event_nid) VALUES (?, ?, ?)",
        [(group, key, event) for key, event in changes.items()],
    )
    return group


def read_group(db: Reader, group: int) -> dict[int, int]:
    """The whole state; the caller's own dict."""
    cache = _cache(db)
    if cache is not None and (known := cache.get(group)) is not None:
        return known.copy()
    rows = db.execute(
        f"{_CHAIN} SELECT chain.group_nid, d.key_nid, d.event_nid FROM chain JOIN state_deltas AS d "
        "ON d.group_nid = chain.group_nid WHERE chain.hops > 0 ORDER BY step DESC",
        (group,),
    ).fetchall()
    state = _changed(_snapshot_below(db, group), ((key, event) for _, key, event in rows))
    if cache is not None:
        cache.put(group, state)
        return state.copy()
    return state


def lookup(db: Reader, group: int, key_nids: Iterable[int]) -> dict[int, int]:
    """The events at those of `key_nids` that are in the state."""
    keys = set(key_nids)
    cache = _cache(db)
    if cache is not None and (known := cache.get(group)) is not None:
        return {key: known[key] for key in keys if key in known}
    marks = ",".join("?" * len(keys))
    rows = db.execute(
        f"{_CHAIN} SELECT d.key_nid, d.event_nid FROM chain JOIN state_deltas AS d "
        f"ON d.group_nid = chain.group_nid AND d.key_nid IN ({marks}) WHERE chain.hops > 0 ORDER BY step DESC",
        (group, *keys),
    ).fetchall()
    found = dict(rows)
    if missing := keys - found.keys():
        snapshot = _snapshot_below(db, group)
        found.update((key, snapshot[key]) for key in missing if key in snapshot)
    return {key: event for key, event in found.items() if event is not None}


def diff(db: Reader, a: int, b: int) -> dict[int, tuple[int | None, int | None]]:
    """The keys at which `a` and `b` differ, with the event of each; work in proportion to the changes."""
    if a == b:
        return {}
    walk = db.execute(_MEET, (a, b)).fetchall()
    last_a, last_b = walk[-1]
    if last_a is None or last_b is None or last_a != last_b:
        return _compare(read_group(db, a), read_group(db, b))
    of_a = _deltas(db, [group for group in dict.fromkeys(row[0] for row in walk) if group != last_a])
    of_b = _deltas(db, [group for group in dict.fromkeys(row[1] for row in walk) if group != last_b])
    below = lookup(db, last_a, of_a.keys() ^ of_b.keys())
    differ: dict[int, tuple[int | None, int | None]] = {}
    for key in of_a.keys() | of_b.keys():
        pair = of_a.get(key, below.get(key)), of_b.get(key, below.get(key))
        if pair[0] != pair[1]:
            differ[key] = pair
    return differ


def delete_room_groups(tx: Tx, room_nid: int) -> None:
    """Forget all state groups of a room."""
    tx.execute("DELETE FROM state_groups WHERE room_nid = ?", (room_nid,))


def _insert(tx: Tx, room_nid: int, parent: int | None, hops: int, snapshot: bytes | None) -> int:
    cursor = tx.execute(
        "INSERT INTO state_groups (room_nid, parent, hops, snapshot) VALUES (?, ?, ?, ?)",
        (room_nid, parent, hops, snapshot),
    )
    assert cursor.lastrowid is not None  # noqa: S101 - an INSERT that did not raise
    return cursor.lastrowid


def _snapshot_below(db: Reader, group: int) -> dict[int, int]:
    row = db.execute(
        f"{_CHAIN} SELECT s.snapshot FROM chain JOIN state_groups AS s ON s.group_nid = chain.group_nid "
        "WHERE chain.hops = 0",
        (group,),
    ).fetchone()
    if row is None:
        raise UnknownGroup(group)
    return unpack(row[0])


def _deltas(db: Reader, groups: list[int]) -> dict[int, int | None]:
    """What `groups`, nearest first, change together."""
    found: dict[int, int | None] = {}
    for group in reversed(groups):
        found.update(
            db.execute("SELECT key_nid, event_nid FROM state_deltas WHERE group_nid = ?", (group,)).fetchall()
        )
    return found


def _changed(state: dict[int, int], changes: Iterable[tuple[int, int | None]]) -> dict[int, int]:
    for key, event in changes:
        if event is None:
            state.pop(key, None)
        else:
            state[key] = event
    return state


def _compare(a: dict[int, int], b: dict[int, int]) -> dict[int, tuple[int | None, int | None]]:
    return {key: (a.get(key), b.get(key)) for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def _cache(db: Reader) -> GroupCache | None:
    """Only the loop's reader has one: a write's groups may yet be rolled back."""
    return db.groups if isinstance(db, ReadConnection) else None
