# SPDX-License-Identifier: Apache-2.0
"""What was read of state groups lately, counted in bytes.

A committed group never changes and its number is never used again, so nothing here goes stale. For one
thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from minihs.store.byte_cache import ByteCache
from minihs.store.state_packing import Snapshot

BYTES_PER_KEY = 96
"""Of a dict of integers, measured at 10,000 keys: the table and the integers themselves."""

BYTES_PER_EVENT = 320
"""Of one remembered lookup: the key pair, the value, their places in the cache."""


class StateCache:
    """Whole states as dicts, snapshots in their packed form, and single lookups."""

    def __init__(self, limit: int) -> None:
        self.states: ByteCache[int, dict[int, int]] = ByteCache(limit // 2)
        """The cache's own dicts: copy one before you change it or give it away."""
        self.snapshots: ByteCache[int, Snapshot] = ByteCache(limit // 4)
        self.events: ByteCache[tuple[int, int], int] = ByteCache(limit // 4)
        """(group, key) → event, 0: not in the state."""

    def put_state(self, group: int, state: dict[int, int]) -> None:
        self.states.put(group, state, 256 + BYTES_PER_KEY * len(state))

    def find(self, group: int, missing: set[int], found: dict[int, int | None]) -> None:
        """Move what is known of `missing` at `group` over to `found`."""
        state = self.states.get(group)
        if state is not None:
            found.update((key, state.get(key)) for key in missing)
            missing.clear()
            return
        for key in list(missing):
            event = self.events.get((group, key))
            if event is not None:
                found[key] = event or None
                missing.discard(key)

    def remember(self, group: int, found: Mapping[int, int | None]) -> None:
        for key, event in found.items():
            self.events.put((group, key), event or 0, BYTES_PER_EVENT)

    @property
    def size(self) -> int:
        """Bytes in use, estimated."""
        return self.states.size + self.snapshots.size + self.events.size
