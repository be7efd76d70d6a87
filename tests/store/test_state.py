# SPDX-License-Identifier: Apache-2.0
"""State groups against plain dicts."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minihs.store import state
from minihs.store.migrations import open_for_writing, shipped
from minihs.store.reader import ReadConnection
from minihs.store.writer import Tx

type State = dict[int, int]


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Tx, ReadConnection]]:
    """A database with room 1 in it: a transaction that commits each statement, and a caching reader."""
    path = folder / "test.db"
    with closing(open_for_writing(path, shipped(), synchronous="OFF")) as connection:
        connection.execute("INSERT INTO rooms (room_nid, room_id, version) VALUES (1, '!a:test', '12')")
        with closing(ReadConnection(path, budget=10**9, cache_kib=1024, state_cache=1 << 20)) as reader:
            yield Tx(connection), reader


def applied(before: State, changes: dict[int, int | None]) -> State:
    after = {**before, **{key: event for key, event in changes.items() if event is not None}}
    return {key: event for key, event in after.items() if changes.get(key, 0) is not None}


def naive_diff(a: State, b: State) -> dict[int, tuple[int | None, int | None]]:
    return {key: (a.get(key), b.get(key)) for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


KEYS = st.integers(1, 12)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), st.integers(1, 40)), max_size=4)
TREES = st.lists(st.tuples(st.floats(0, 1), CHANGES), min_size=1, max_size=60)
"""Each group: where its parent stands among those before it (1: the last one), what it changes."""


def grow(tx: Tx, tree: list[tuple[float, dict[int, int | None]]]) -> dict[int, State]:
    root = {1: 1, 2: 2, 3: 3}
    groups = {state.new_group(tx, 1, None, root): root}
    for place, changes in tree:
        known = list(groups)
        # Squared towards the end: long chains with a fork now and then are what rooms look like.
        parent = known[min(int((1 - (1 - place) ** 3) * len(known)), len(known) - 1)]
        groups[state.new_group(tx, 1, parent, changes)] = applied(groups[parent], changes)
    return groups


@pytest.mark.parametrize(("radix", "weight"), [(2, 3), (3, 20), (16, 64), (4, 10**6)])
def test_every_operation_agrees_with_plain_dicts_on_any_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, radix: int, weight: int
) -> None:
    monkeypatch.setattr(state, "RADIX", radix)
    monkeypatch.setattr(state, "MIN_WEIGHT", weight)
    with opened(tmp_path) as (tx, reader):

        @settings(max_examples=20, deadline=None)
        @given(TREES, st.lists(KEYS, max_size=6), st.randoms(use_true_random=False))
        def check(
            tree: list[tuple[float, dict[int, int | None]]], keys: list[int], chance: random.Random
        ) -> None:
            groups = grow(tx, tree)
            for db in (tx, reader, reader):  # the second time the reader answers from its cache
                for group in chance.sample(list(groups), len(groups)):
                    plain = groups[group]
                    wanted = {key: plain[key] for key in keys if key in plain}
                    if chance.random() < 0.5:
                        assert state.lookup(db, group, keys) == wanted
                    assert state.read_group(db, group) == plain
                    assert state.lookup(db, group, keys) == wanted
                for _ in range(30):
                    a, b = chance.choices(list(groups), k=2)
                    assert state.diff(db, a, b) == naive_diff(groups[a], groups[b])

        check()


def test_a_chain_of_thousands_of_groups_reads_right_at_each_point(tmp_path: Path) -> None:
    chance = random.Random(7)
    with opened(tmp_path) as (tx, reader):
        tx.execute("BEGIN")
        plain = {key: key for key in range(1, 2001)}
        states = [(state.new_group(tx, 1, None, plain), plain)]
        for number in range(2500):
            group, plain = states[-1]
            changes = {chance.randrange(1, 2500): chance.choice([None, 10_000 + number])}
            states.append((state.new_group(tx, 1, group, changes), applied(plain, changes)))
        tx.execute("COMMIT")
        for group, plain in states[::97]:
            assert state.read_group(reader, group) == plain
            keys = chance.sample(range(1, 2500), 5)
            assert state.lookup(reader, group, keys) == {key: plain[key] for key in keys if key in plain}
        for _ in range(30):
            (a, plain_a), (b, plain_b) = chance.choices(states, k=2)
            assert state.diff(reader, a, b) == naive_diff(plain_a, plain_b)


def test_groups_without_a_common_ancestor_are_compared_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, reader):
        a = state.new_group(tx, 1, state.new_group(tx, 1, None, {1: 1, 2: 2}), {3: 3})
        b = state.new_group(tx, 1, state.new_group(tx, 1, None, {2: 2}), {3: 4})
        assert state.diff(reader, a, b) == {1: (1, None), 3: (3, 4)}
        assert state.diff(reader, b, a) == {1: (None, 1), 3: (4, 3)}


def test_a_chain_too_long_to_walk_is_compared_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_DIFF_ROWS", 5)
    with opened(tmp_path) as (tx, reader):
        first = group = state.new_group(tx, 1, None, {1: 1})
        for event in range(2, 30):
            group = state.new_group(tx, 1, group, {1: event, event: event})
        expected = {key: (None, key) for key in range(2, 30)} | {1: (1, 29)}
        assert state.diff(reader, first, group) == expected


def test_a_message_makes_no_group(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, _):
        group = state.new_group(tx, 1, None, {1: 1})
        assert state.new_group(tx, 1, group, {}) == group


def test_a_key_put_back_to_its_old_event_is_no_difference(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, reader):
        first = state.new_group(tx, 1, None, {1: 1})
        last = state.new_group(tx, 1, state.new_group(tx, 1, first, {1: 2}), {1: 1})
        assert state.diff(reader, first, last) == {}


def test_numbers_of_more_than_32_bits_are_kept(tmp_path: Path) -> None:
    big = {1 << 40: 1 << 50, 2: 3}
    with opened(tmp_path) as (tx, reader):
        group = state.new_group(tx, 1, None, big)
        after = state.new_group(tx, 1, group, {2: 1 << 60, 1 << 41: 7})
        assert state.read_group(reader, group) == big
        assert state.read_group(reader, after) == {1 << 40: 1 << 50, 2: 1 << 60, 1 << 41: 7}
        assert state.lookup(reader, after, [1 << 40, 2]) == {1 << 40: 1 << 50, 2: 1 << 60}


def test_an_unknown_group_is_an_error(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, reader):
        group = state.new_group(tx, 1, None, {1: 1})
        for call in (
            lambda: state.read_group(reader, 99),
            lambda: state.lookup(reader, 99, [1]),
            lambda: state.diff(reader, group, 99),
            lambda: state.diff(reader, 99, group),
            lambda: state.new_group(tx, 1, 99, {1: 2}),
        ):
            with pytest.raises(state.UnknownGroup):
                call()


def test_a_group_can_only_continue_its_own_room(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, _):
        tx.execute("INSERT INTO rooms (room_nid, room_id) VALUES (2, '!b:test')")
        group = state.new_group(tx, 1, None, {1: 1})
        with pytest.raises(state.UnknownGroup):
            state.new_group(tx, 2, group, {1: 2})


def test_deleted_groups_are_gone_and_their_numbers_never_come_back(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, _):
        tx.execute("INSERT INTO rooms (room_nid, room_id) VALUES (2, '!b:test')")
        other = state.new_group(tx, 2, None, {1: 1})
        last = state.new_group(tx, 1, state.new_group(tx, 1, None, {1: 1}), {1: 2})
        state.delete_room_groups(tx, 1)
        assert tx.execute("SELECT group_nid FROM state_groups").fetchall() == [(other,)]
        assert state.new_group(tx, 1, None, {1: 1}) > last


def test_deleting_a_room_deletes_its_groups(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, _):
        state.new_group(tx, 1, None, {1: 1})
        tx.execute("DELETE FROM rooms WHERE room_nid = 1")
        assert tx.execute("SELECT count(*) FROM state_groups").fetchone() == (0,)


def test_what_was_read_may_be_changed_without_harm(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, reader):
        group = state.new_group(tx, 1, None, {1: 1})
        state.read_group(reader, group)[1] = 99
        state.read_group(reader, group)[1] = 98
        assert state.read_group(reader, group) == {1: 1}


def test_a_transaction_leaves_nothing_in_the_cache_of_the_reader(tmp_path: Path) -> None:
    """A group that is rolled back gives its number to another one."""
    with opened(tmp_path) as (tx, reader):
        tx.execute("BEGIN")
        undone = state.new_group(tx, 1, None, {1: 1})
        assert state.read_group(tx, undone) == {1: 1}
        tx.execute("ROLLBACK")
        group = state.new_group(tx, 1, None, {1: 2})
        assert group == undone
        assert state.read_group(reader, group) == {1: 2}
        assert state.lookup(reader, group, [1]) == {1: 2}


def steps_of(tx: Tx, work: object) -> int:
    """Steps of SQLite's virtual machine that `work` takes."""
    connection = tx.execute("SELECT 1").connection
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection.set_progress_handler(step, 1)
    assert callable(work)
    work()
    connection.set_progress_handler(None, 1)
    return count


def test_differences_cost_the_same_in_small_and_large_rooms(tmp_path: Path) -> None:
    costs = []
    for size in (200, 20_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        with opened(folder) as (tx, _):
            tx.execute("BEGIN")
            base = state.new_group(tx, 1, None, {key: key for key in range(1, size)})
            left = right = base
            for number in range(10):
                left = state.new_group(tx, 1, left, {number + 1: 100_000 + number})
                right = state.new_group(tx, 1, right, {number + 6: 200_000 + number})
            assert len(state.diff(tx, left, right)) == 15
            costs.append(steps_of(tx, lambda a=left, b=right: state.diff(tx, a, b)))
            tx.execute("COMMIT")
    assert costs[1] < 1.5 * costs[0]


def test_a_change_costs_less_than_a_hundred_bytes_in_a_large_room(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, _):
        tx.execute("BEGIN")
        group = state.new_group(tx, 1, None, {key: key for key in range(1, 10_001)})
        before = (
            tx.execute("PRAGMA page_count").fetchone()[0] - tx.execute("PRAGMA freelist_count").fetchone()[0]
        )
        for number in range(6000):
            group = state.new_group(tx, 1, group, {number + 1: 100_000 + number})
        after = (
            tx.execute("PRAGMA page_count").fetchone()[0] - tx.execute("PRAGMA freelist_count").fetchone()[0]
        )
        tx.execute("COMMIT")
        assert (after - before) * 4096 / 6000 < 100


def test_the_cache_stays_within_its_bytes(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, reader):
        groups = [state.new_group(tx, 1, None, {key: key + n for key in range(1, 500)}) for n in range(60)]
        for group in groups:
            state.read_group(reader, group)
            state.lookup(reader, group, range(1, 100))
        assert 0 < reader.state_cache.size <= 1 << 20


def test_reading_a_group_of_a_broken_chain_is_an_error_not_a_wrong_state(tmp_path: Path) -> None:
    with opened(tmp_path) as (tx, reader):
        first = state.new_group(tx, 1, None, {1: 1})
        last = state.new_group(tx, 1, state.new_group(tx, 1, first, {2: 2}), {3: 3})
        tx.execute("DELETE FROM state_groups WHERE group_nid = ?", (first,))
        with pytest.raises((state.UnknownGroup, sqlite3.Error)):
            state.read_group(reader, last)
