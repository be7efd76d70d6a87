# SPDX-License-Identifier: Apache-2.0
"""The packed forms of states and changes: a tag, all keys in order, then their events, as fixed-width
integers.

The tag is array's type code: "I" for 4 bytes each, "Q" for 8. Little-endian whatever the machine, so that a
database can be moved. (zlib would halve a snapshot for a third more reading time; since snapshots come once
per quarter of their size in changes, they are not what fills the disk.)
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Mapping

_SWAP = sys.byteorder == "big"
_NARROW = 1 << 32

type Changes = dict[int, int | None]
"""key_nid → event_nid, None: the key is gone."""


class Snapshot:
    """A whole state, packed as it is on disk; an eighth of the size of a dict."""

    __slots__ = ("_events", "_keys")

    def __init__(self, packed: bytes) -> None:
        self._keys, self._events = _columns(packed)

    def get(self, key: int) -> int | None:
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            return self._events[place]
        return None

    def as_dict(self) -> dict[int, int]:
        return dict(zip(self._keys, self._events))

    @property
    def cost(self) -> int:
        """Bytes in memory."""
        return 200 + 2 * len(self._keys) * self._keys.itemsize


def pack_state(state: Mapping[int, int]) -> bytes:
    keys = sorted(state)
    return _packed(keys, [state[key] for key in keys])


def pack_changes(changes: Mapping[int, int | None]) -> bytes:
    return _packed(list(changes), [event or 0 for event in changes.values()])


def unpack_changes(packed: bytes) -> Changes:
    keys, events = _columns(packed)
    return {key: event or None for key, event in zip(keys, events)}


def _packed(keys: list[int], events: list[int]) -> bytes:
    code = "I" if max(keys, default=0) < _NARROW and max(events, default=0) < _NARROW else "Q"
    columns = array(code, keys + events)
    if _SWAP:
        columns.byteswap()
    return code.encode() + columns.tobytes()


def _columns(packed: bytes) -> tuple[array[int], array[int]]:
    columns = array("I" if packed[0] == 73 else "Q", packed[1:])
    if _SWAP:
        columns.byteswap()
    half = len(columns) // 2
    return columns[:half], columns[half:]
