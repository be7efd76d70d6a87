# SPDX-License-Identifier: Apache-2.0
"""A cache with a size in bytes, as its users estimate them: the least recently used leave first."""

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

    def put(self, key: K, value: V, cost: int) -> None:
        """Keep `value`, unless it alone is larger than the limit."""
        self.drop(key)
        if cost > self._limit:
            return
        self._items[key] = (value, cost)
        self._size += cost
        while self._size > self._limit:
            _, (_, freed) = self._items.popitem(last=False)
            self._size -= freed

    def drop(self, key: K) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._size -= item[1]

    def clear(self) -> None:
        self._items.clear()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes in use."""
        return self._size

    @property
    def limit(self) -> int:
        return self._limit

    def __len__(self) -> int:
        return len(self._items)
