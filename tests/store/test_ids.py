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


async def test_many_events_get_the_numbers_that_they_would_get_one_by_one(either_db: Database) -> None:
    names = [f"${number}" for number in range(1200)]

    def write(tx: Tx) -> tuple[dict[str, int], list[int]]:
        held = {name: ids.intern_event(tx, name) for name in names[::3]}
        many = ids.intern_events(tx, [*names, *names[:5]])
        assert held.items() <= many.items()
        assert ids.intern_events(tx, names) == many
        return many, [ids.intern_event(tx, name) for name in [*names, "$one more"]]

    many, (*singly, another) = await either_db.write(write)
    assert list(map(many.__getitem__, names)) == singly
    assert len(set(singly)) == len(names)
    assert another == max(singly) + 1


async def test_many_keys_get_the_numbers_that_they_would_get_one_by_one(either_db: Database) -> None:
    keys = [(f"type{number % 3}", f"key{number // 2}") for number in range(1600)]

    def write(tx: Tx) -> tuple[dict[tuple[str, str], int], list[int]]:
        held = {key: ids.intern_key(tx, *key) for key in keys[::7]}
        many = ids.intern_keys(tx, [*keys, *keys[:5]])
        assert held.items() <= many.items()
        assert ids.intern_keys(tx, keys) == many
        return many, [ids.intern_key(tx, *key) for key in keys]

    many, singly = await either_db.write(write)
    assert list(map(many.__getitem__, keys)) == singly
    assert len(set(singly)) == len(set(keys))
