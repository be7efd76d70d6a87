# SPDX-License-Identifier: Apache-2.0
"""What one answer of sliding sync is made for and from: passed along while it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minihs.store import room_activity
from minihs.store.reader import Reader
from minihs.sync.client_events import Viewer
from minihs.sync.filters import ALL
from minihs.sync.group_facts import GroupFacts
from minihs.sync.lazy_members import Delivery
from minihs.sync.selection import Selector
from minihs.sync.sliding.connections import Known, Settled
from minihs.sync.sliding.request import SlidingRequest
from minihs.sync.tokens import SyncToken


@dataclass(frozen=True, slots=True)
class TypingNow:
    """Taken from memory before the answer is built, maybe in a thread."""

    serial: int
    users: Mapping[str, list[str]]
    """room id → users, of all rooms where somebody typed since the start."""
    changed: frozenset[str]
    """Rooms where that changed since the client's position."""
    forgotten: bool
    """The client's position is from before our start: it may still show somebody as typing."""


@dataclass(frozen=True, slots=True)
class SlidingContext:
    """One attempt at an answer."""

    db: Reader
    facts: GroupFacts
    viewer: Viewer
    request: SlidingRequest
    since: SyncToken | None
    """None: the first answer of a connection."""
    upto: int
    now_ms: int
    typing: TypingNow
    ignored: frozenset[str]
    members: Delivery
    known: Mapping[int, Known]
    """room_nid → what the client knows of the room."""
    known_data: int | None
    settled: Settled | None
    _keys: dict[tuple[str, str | None], list[int]] = field(default_factory=dict)

    def key(self, type: str, state_key: str) -> int | None:
        """key_nid; None: no room has it."""
        wanted = type, state_key
        if wanted not in self._keys:
            found = self.facts.key(self.db, type, state_key)
            self._keys[wanted] = [] if found is None else [found]
        return self._keys[wanted][0] if self._keys[wanted] else None

    def keys_of_type(self, type: str, limit: int) -> list[int]:
        """key_nids of up to `limit` state keys of a type, of all rooms."""
        if (type, None) not in self._keys:
            self._keys[type, None] = room_activity.keys_of_type(self.db, type, limit)
        return self._keys[type, None]

    @property
    def user_id(self) -> str:
        return self.viewer.user_id

    @property
    def selector(self) -> Selector:
        return Selector(self.db, self.facts, self.user_id, ALL, self.ignored)
