# SPDX-License-Identifier: Apache-2.0
"""A cache that is counted in bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minihs.store.byte_cache import ByteCache


def test_the_least_recently_used_leaves_first() -> None:
    cache: ByteCache[str, int] = ByteCache(100)
    for name in "abc":
        cache.put(name, 1, 30)
    assert cache.get("a") == 1
    cache.put("d", 1, 30)
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]
    assert cache.size == 90


def test_what_is_larger_than_the_limit_is_not_kept_and_drives_nobody_out() -> None:
    cache: ByteCache[str, int] = ByteCache(100)
    cache.put("a", 1, 30)
    cache.put("b", 2, 101)
    assert (cache.get("a"), cache.get("b"), cache.size) == (1, None, 30)


def test_putting_again_replaces_value_and_cost() -> None:
    cache: ByteCache[str, int] = ByteCache(100)
    cache.put("a", 1, 30)
    cache.put("a", 2, 50)
    assert (cache.get("a"), cache.size, len(cache)) == (2, 50, 1)
    cache.put("a", 3, 1000)
    assert (cache.get("a"), cache.size, len(cache)) == (None, 0, 0)


def test_what_is_dropped_gives_its_bytes_back() -> None:
    cache: ByteCache[str, int] = ByteCache(100)
    cache.put("a", 1, 30)
    cache.put("b", 2, 40)
    cache.drop("a")
    cache.drop("nothing")
    assert (cache.get("a"), cache.get("b"), cache.size) == (None, 2, 40)
    cache.clear()
    assert (cache.get("b"), cache.size, len(cache)) == (None, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=80))
def test_the_limit_is_never_passed(puts: list[tuple[int, int]]) -> None:
    cache: ByteCache[int, int] = ByteCache(100)
    costs: dict[int, int] = {}
    for key, cost in puts:
        cache.put(key, cost, cost)
        costs[key] = cost
        kept = [key for key in costs if cache.get(key) is not None]
        assert cache.size == sum(costs[key] for key in kept) <= 100
