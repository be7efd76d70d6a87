# SPDX-License-Identifier: Apache-2.0
"""A cache with a size in bytes: the least recently used leave first."""

from __future__ import annotations

from collections import OrderedDict


class ByteCache[K, V]:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: K, value: V, size: int) -> None:
        self.drop(key)
        self._items[key] = (value, size)
        self._size += size
        while self._size > self._limit and len(self._items) > 1:
            _, (_, freed) = self._items.popitem(last=False)
            self._size -= freed

    def drop(self, key: K) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._size -= item[1]

    def clear(self) -> None:
        self._items.clear()
        self._size = 0

    def __len__(self) -> int:
        return len(self._items)
