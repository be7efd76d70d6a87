# SPDX-License-Identifier: Apache-2.0
"""The packed form of a whole state: a tag, the keys in order, their events, as fixed-width integers."""

from __future__ import annotations

import sys
from array import array


def pack(state: dict[int, int]) -> bytes:
    """Pack `key_nid -> event_nid`."""
    keys = sorted(state)
    events = [state[key] for key in keys]
    code = "I" if max(keys, default=0) < 1 << 32 and max(events, default=0) < 1 << 32 else "Q"
    columns = array(code, keys + events)
    if sys.byteorder == "big":
        columns.byteswap()
    return code.encode() + columns.tobytes()


def unpack(packed: bytes) -> dict[int, int]:
    """What `pack` was given."""
    columns = array(chr(packed[0]))
    columns.frombytes(packed[1:])
    if sys.byteorder == "big":
        columns.byteswap()
    half = len(columns) // 2
    return dict(zip(columns[:half], columns[half:]))
