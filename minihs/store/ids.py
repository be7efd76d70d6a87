# SPDX-License-Identifier: Apache-2.0
"""Identifiers outside, integers inside: looking up and interning "nids".

`X_nid(db, ...)` looks up and returns None for what was never seen; `intern_X(tx, ...)` makes the number if
need be. Interning is idempotent, so a write closure may be run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from minihs.store.database import Reader, Tx

_CHUNK = 500
"""Placeholders per statement; far below SQLite's limit, and few distinct statement texts to cache."""


def chunks[T](items: Collection[T]) -> Iterable[list[T]]:
    """Split what goes into an `IN (...)` list."""
    rest = list(items)
    for start in range(0, len(rest), _CHUNK):
        yield rest[start : start + _CHUNK]


def marks(count: int) -> str:
    """Placeholders for `count` values: `?,?,?`."""
    return ",".join("?" * count)


def rows_where_in(
    db: Reader | Tx, statement: str, items: Collection[Any], *more: object
) -> Iterator[tuple[Any, ...]]:
    """The rows of a SELECT with `IN (...)`, written just so, for however many items; `more` are the values of
    the placeholders behind it."""
    for part in chunks(items):
        yield from db.execute(statement.replace("...", marks(len(part)), 1), (*part, *more)).fetchall()


def event_nid(db: Reader, event_id: str) -> int | None:
    row = db.execute("SELECT event_nid FROM event_ids WHERE event_id = ?", (event_id,)).fetchone()
    return None if row is None else int(row[0])


def event_nids(db: Reader, event_ids: Collection[str]) -> dict[str, int]:
    """Those of `event_ids` that have a number."""
    return dict(
        rows_where_in(db, "SELECT event_id, event_nid FROM event_ids WHERE event_id IN (...)", event_ids)
    )


def event_ids(db: Reader, nids: Collection[int]) -> dict[int, str]:
    return dict(rows_where_in(db, "SELECT event_nid, event_id FROM event_ids WHERE event_nid IN (...)", nids))


def intern_event(tx: Tx, event_id: str) -> int:
    nid = tx.event_nids.get(event_id)
    if nid is None:
        nid = event_nid(tx, event_id)
        if nid is None:
            return intern_new_event(tx, event_id)
        tx.remember(event_id, nid)
    return nid


def intern_new_event(tx: Tx, event_id: str) -> int:
    """The same, faster for an event that was most likely never heard of."""
    return _intern_likely_new(tx, event_id)[0]


def _intern_likely_new(tx: Tx, event_id: str) -> tuple[int, bool]:
    """The number, and whether it was made now."""
    row = tx.execute(
        "INSERT INTO event_ids (event_id) VALUES (?) ON CONFLICT DO NOTHING RETURNING event_nid", (event_id,)
    ).fetchall()
    nid = int(row[0][0]) if row else event_nid(tx, event_id)
    assert nid is not None  # noqa: S101  (it is there if it could not be put there)
    tx.remember(event_id, nid)
    return nid, bool(row)


def intern_events(tx: Tx, event_ids: Iterable[str]) -> dict[str, int]:
    """The numbers of many events, in a few statements."""
    return intern_and_tell(tx, event_ids)[0]


def intern_and_tell(tx: Tx, event_ids: Iterable[str]) -> tuple[dict[str, int], set[int]]:
    """The same, and which of the numbers were made for that: nothing in the database can have named them."""
    found: dict[str, int] = {}
    asked: dict[str, None] = {}
    for event_id in event_ids:
        nid = tx.event_nids.get(event_id)
        if nid is None:
            asked[event_id] = None
        else:
            found[event_id] = nid
    if len(asked) == 1:
        (event_id,) = asked
        found[event_id], is_new = _intern_likely_new(tx, event_id)
        return found, {found[event_id]} if is_new else set()
    found.update(event_nids(tx, asked))
    new = [event_id for event_id in asked if event_id not in found]
    if new:
        last = tx.execute("SELECT COALESCE(MAX(event_nid), 0) FROM event_ids").fetchone()[0]
        numbered = list(enumerate(new, last + 1))
        tx.executemany("INSERT INTO event_ids (event_nid, event_id) VALUES (?, ?)", numbered)
        found.update((event_id, nid) for nid, event_id in numbered)
    for event_id in asked:
        tx.remember(event_id, found[event_id])
    return found, {found[event_id] for event_id in new}


def key_nid(db: Reader, type: str, state_key: str) -> int | None:
    row = db.execute(
        "SELECT key_nid FROM state_keys WHERE type = ? AND state_key = ?", (type, state_key)
    ).fetchone()
    return None if row is None else int(row[0])


def intern_key(tx: Tx, type: str, state_key: str) -> int:
    nid = key_nid(tx, type, state_key)
    if nid is not None:
        return nid
    row = tx.execute(
        "INSERT INTO state_keys (type, state_key) VALUES (?, ?) RETURNING key_nid", (type, state_key)
    ).fetchone()
    return int(row[0])


def intern_keys(tx: Tx, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The numbers of many (type, state_key), in a few statements."""
    by_type: dict[str, list[str]] = {}
    for type, state_key in dict.fromkeys(keys):
        by_type.setdefault(type, []).append(state_key)
    found: dict[tuple[str, str], int] = {}
    for type, all_of_type in by_type.items():
        for part in chunks(all_of_type):
            for state_key, nid in tx.execute(
                "SELECT state_key, key_nid FROM state_keys "
                f"WHERE type = ? AND state_key IN ({marks(len(part))})",
                (type, *part),
            ).fetchall():
                found[type, state_key] = nid
    new = [key for key in dict.fromkeys(keys) if key not in found]
    if new:
        last = tx.execute("SELECT COALESCE(MAX(key_nid), 0) FROM state_keys").fetchone()[0]
        numbered = [(nid, *key) for nid, key in enumerate(new, last + 1)]
        tx.executemany("INSERT INTO state_keys (key_nid, type, state_key) VALUES (?, ?, ?)", numbered)
        found.update(((type, state_key), nid) for nid, type, state_key in numbered)
    return found


def state_keys(db: Reader, nids: Collection[int]) -> dict[int, tuple[str, str]]:
    """The (type, state_key) behind each number."""
    statement = "SELECT key_nid, type, state_key FROM state_keys WHERE key_nid IN (...)"
    return {nid: (type, state_key) for nid, type, state_key in rows_where_in(db, statement, nids)}


def host_nid(db: Reader, host: str) -> int | None:
    row = db.execute("SELECT host_nid FROM hosts WHERE host = ?", (host,)).fetchone()
    return None if row is None else int(row[0])


def intern_host(tx: Tx, host: str) -> int:
    nid = host_nid(tx, host)
    if nid is not None:
        return nid
    row = tx.execute("INSERT INTO hosts (host) VALUES (?) RETURNING host_nid", (host,)).fetchone()
    return int(row[0])
