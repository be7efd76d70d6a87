# SPDX-License-Identifier: Apache-2.0
"""Numbers for identifiers."""

from __future__ import annotations

import pytest

from minihs.store import ids
from minihs.store.database import Database, Tx
from minihs.store.writer import MAX_REMEMBERED


async def test_an_event_id_has_one_number(either_db: Database) -> None:
    def write(tx: Tx) -> list[int]:
        return [
            ids.intern_event(tx, "$a"),
            ids.intern_new_event(tx, "$a"),
            ids.intern_new_event(tx, "$b"),
            ids.intern_event(tx, "$b"),
        ]

    a, again, b, b_again = await either_db.write(write)
    assert a == again
    assert b == b_again
    assert a != b
    assert await either_db.write(write) == [a, a, b, b]
    assert ids.event_nids(either_db.read, ["$a", "$b", "$c"]) == {"$a": a, "$b": b}


async def test_a_number_that_was_rolled_back_is_not_remembered(either_db: Database) -> None:
    def failing(tx: Tx) -> None:
        ids.intern_event(tx, "$a")
        raise KeyError

    with pytest.raises(KeyError):
        await either_db.write(failing)
    assert ids.event_nid(either_db.read, "$a") is None
    nid = await either_db.write(lambda tx: ids.intern_event(tx, "$a"))
    assert ids.event_nid(either_db.read, "$a") == nid


async def test_a_write_remembers_a_bounded_number_of_them(either_db: Database) -> None:
    def write(tx: Tx) -> tuple[int, int, list[int]]:
        first = [ids.intern_event(tx, f"${number}") for number in range(MAX_REMEMBERED)]
        full = len(tx.event_nids)
        ids.intern_event(tx, "$one more")
        left = len(tx.event_nids)
        again = [ids.intern_event(tx, f"${number}") for number in range(MAX_REMEMBERED)]
        assert again == first
        return full, left, again

    full, left, again = await either_db.write(write)
    assert full == MAX_REMEMBERED
    assert left == 1
    assert len(set(again)) == MAX_REMEMBERED
