# SPDX-License-Identifier: Apache-2.0
"""What need not be read, since it was not written.

A /sync looks into a dozen tables, and in most of them there is nothing new for its user: messages leave them
as they are. So for each kind of row, and each user or room, it is noted up to which position it may have been
written (`Written`); a reader whose `since` is not before that has no need to look, and small answers that
were read after it are still good (`Kept`).

Triggers make the notes, so that no statement can be overlooked, and they make them *before* the commit: who
can see the rows can see the note. It says the position of the stream and one more, as there are rows without
a position of their own. What is rolled back leaves a note that is too high; a read more is all that costs.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Hashable, Sized
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from minihs.store.reader import Reader

ACCOUNT_DATA = "account data"
"""With the push rules. By user."""
MEMBERSHIPS = "memberships"
"""The log of what local users were in which room. By user."""
TO_DEVICE = "to-device messages"
DEVICE_KEYS = "device keys"
"""One-time and fallback keys. By user."""
RECEIPTS = "receipts"
"""And the places of the events that they name. By room."""
STATES = "states"
"""The current state by position. By room."""
GAPS = "gaps"
"""Backward extremities. By room."""
DEVICE_LISTS = "device lists"
"""Anybody's."""
PARTIAL_JOINS = "partial joins"
"""Any room's."""

ANY = ""

_ALWAYS = ("INSERT", "UPDATE", "DELETE")
_TABLES = (
    ("account_data", ACCOUNT_DATA, "user_id", _ALWAYS),
    ("push_rules", ACCOUNT_DATA, "user_id", _ALWAYS),
    ("membership_log", MEMBERSHIPS, "user_id", _ALWAYS),
    ("to_device", TO_DEVICE, "user_id", ("INSERT", "UPDATE")),
    ("one_time_keys", DEVICE_KEYS, "user_id", _ALWAYS),
    ("fallback_keys", DEVICE_KEYS, "user_id", _ALWAYS),
    ("receipts", RECEIPTS, "room_nid", _ALWAYS),
    ("events", RECEIPTS, "room_nid", ("UPDATE OF arrival, topo, room_nid", "DELETE")),
    ("room_states", STATES, "room_nid", _ALWAYS),
    ("backward_extremities", GAPS, "room_nid", _ALWAYS),
    ("device_list_changes", DEVICE_LISTS, None, _ALWAYS),
    ("signed_users", DEVICE_LISTS, None, _ALWAYS),
    ("partial_joins", PARTIAL_JOINS, None, _ALWAYS),
)

SLOTS = 1024
"""Notes of each kind. Users, or rooms, that have one in common only read more often."""

KEPT_BYTES = 2 << 20
"""Of answers: beyond that all are dropped, and read again."""
ANSWER_BYTES = 300
ITEM_BYTES = 300
"""What an answer counts as, and each item of it: at most an id with what belongs to it."""


class Written:
    """Up to where what may have been written: noted in the writer's thread, read in any."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """The writing connection. Nothing is known of what was before."""
        here = {
            row[0] for row in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")
        }
        start = connection.execute("SELECT pos + 1 FROM stream").fetchone()[0] if "stream" in here else 1
        self.notes = {kind: array("q", [start] * SLOTS) for _, kind, _, _ in _TABLES}
        connection.create_function("written", 3, self._note)
        for table, kind, column, actions in _TABLES:
            for action in actions if table in here else ():
                name = f"{action.split()[0]}_noted_in_{table}"
                connection.execute(
                    f"CREATE TEMP TRIGGER {name} AFTER {action} ON main.{table} "
                    f"BEGIN SELECT {_notes(kind, column, action)} FROM main.stream; END"
                )

    def _note(self, kind: str, key: str | int | None, pos: int) -> None:
        notes, slot = self.notes[kind], hash(key or ANY) % SLOTS
        notes[slot] = max(notes[slot], pos + 1)


def _notes(kind: str, column: str | None, action: str) -> str:
    rows = ("OLD", "NEW") if action.startswith("UPDATE") else ("OLD",) if action == "DELETE" else ("NEW",)
    keys = {f"{row}.{column}" for row in rows} if column is not None else {"NULL"}
    return ", ".join(f"written('{kind}', {key}, pos)" for key in sorted(keys))


class _Answer(NamedTuple):
    value: Any
    pos: int
    """All that was written up to here is in it."""
    size: int


class Kept:
    """For a connection that only reads, and never an earlier state of the database than before."""

    def __init__(self, written: Written) -> None:
        self._notes = written.notes
        self._answers: dict[tuple[str, str | int, Hashable], _Answer] = {}
        self.size = 0
        """Of the answers."""
        self.pos = 0
        """A position that the connection has seen: whatever it reads now is not older."""

    def is_unwritten(self, kind: str, key: str | int, since: int) -> bool:
        return self._notes[kind][hash(key) % SLOTS] <= since

    def get(self, kind: str, key: str | int, what: Hashable) -> _Answer | None:
        answer = self._answers.get((kind, key, what))
        if answer is None or self._notes[kind][hash(key) % SLOTS] > answer.pos:
            return None
        return answer

    def put(self, kind: str, key: str | int, what: Hashable, value: object) -> None:
        size = ANSWER_BYTES + ITEM_BYTES * (len(value) if isinstance(value, Sized) else 0)
        before = self._answers.pop((kind, key, what), None)
        self.size -= before.size if before is not None else 0
        if self.size + size > KEPT_BYTES:
            self._answers.clear()
            self.size = 0
        if size <= KEPT_BYTES:
            self._answers[kind, key, what] = _Answer(value, self.pos, size)
            self.size += size


def is_unwritten(db: Reader, kind: str, key: str | int, since: int) -> bool:
    """Whether no row of this kind was written after that position. False says nothing."""
    return db.kept is not None and db.kept.is_unwritten(kind, key, since)


def kept[T](
    db: Reader,
    kind: str,
    key: str | int,
    what: Hashable,
    read: Callable[[], T],
    *,
    only_if: Callable[[T], bool] | None = None,
) -> T:
    """What `read` returns, which depends on nothing but rows of this kind and `what`. It is not to be
    changed. `only_if`: whether the answer is one that may be kept."""
    keeper = db.kept
    if keeper is None:
        return read()
    answer = keeper.get(kind, key, what)
    if answer is not None:
        return cast("T", answer.value)
    value = read()
    if only_if is None or only_if(value):
        keeper.put(kind, key, what, value)
    return value
