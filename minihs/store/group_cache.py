# SPDX-License-Identifier: Apache-2.0
"""Whole state groups read lately, counted in bytes; the least recently used leave first."""

from __future__ import annotations

from collections import OrderedDict

BYTES_PER_KEY = 96
"""Of a dict of integers, measured at 10,000 keys: the table and the integers themselves."""


class GroupCache:
    """A committed group never changes and its number is never used again, so nothing here goes stale."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._groups: OrderedDict[int, dict[int, int]] = OrderedDict()

    def get(self, group: int) -> dict[int, int] | None:
        """The cache's own dict: copy it before you change it or give it away."""
        state = self._groups.get(group)
        if state is not None:
            self._groups.move_to_end(group)
        return state

    def put(self, group: int, state: dict[int, int]) -> None:
        cost = _cost(state)
        if group in self._groups or cost > self._limit:
            return
        self._groups[group] = state
        self._size += cost
        while self._size > self._limit:
            _, dropped = self._groups.popitem(last=False)
            self._size -= _cost(dropped)

    @property
    def size(self) -> int:
        """Bytes, estimated."""
        return self._size


def _cost(state: dict[int, int]) -> int:
    return 256 + BYTES_PER_KEY * len(state)
