# SPDX-License-Identifier: Apache-2.0
"""What one answer of /sync is made for and from: passed along while it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.sync.client_events import Viewer
from minihs.sync.filters import SyncFilter
from minihs.sync.group_facts import GroupFacts
from minihs.sync.lazy_members import Delivery
from minihs.sync.room_list import RoomTask
from minihs.sync.tokens import SyncToken

STATE = "state"
STATE_AFTER = "state_after"
UNSTABLE_STATE_AFTER = "org.matrix.msc4222.state_after"


class TypingNews(NamedTuple):
    """Who types in rooms where that changed; taken from memory before the answer is built, maybe in a
    thread."""

    serial: int
    users: Mapping[str, list[str]]
    """room id → users."""
    forgotten: bool = False
    """The client's token is from before our start: it may still show somebody as typing."""


class SyncRequest(NamedTuple):
    viewer: Viewer
    filter: SyncFilter
    since: SyncToken | None
    full_state: bool = False
    state_name: str = STATE
    """What the section with the state is called: STATE, or a name that ends in `state_after`."""

    @property
    def use_state_after(self) -> bool:
        """The state is that at the end of the timeline, not that at its start."""
        return self.state_name != STATE


class SyncContext(NamedTuple):
    """One attempt at an answer."""

    db: Reader
    facts: GroupFacts
    request: SyncRequest
    upto: int
    now_ms: int
    typing: TypingNews
    ignored: frozenset[str]
    members: Delivery
    presence: Sequence[JsonObject] = ()
    """m.presence events, taken from memory before the answer is built."""

    @property
    def user_id(self) -> str:
        return self.request.viewer.user_id

    @property
    def since(self) -> int | None:
        return None if self.request.since is None else self.request.since.pos

    @property
    def is_caught_up(self) -> bool:
        """The change log has not grown since the client's last answer and nobody began or ceased to type: no
        room has news, nor are there account data or device lists to tell."""
        return self.since == self.upto and not self.typing.users and not self.request.full_state


@dataclass(slots=True)
class RoomPart:
    """What an answer says of a joined or left room, before its events are made."""

    task: RoomTask
    timeline: list[EventRow] = field(default_factory=list)
    limited: bool = False
    prev_batch: str = ""
    state: list[int] = field(default_factory=list)
    """Event nids."""
    summary: JsonObject = field(default_factory=dict)
    ephemeral: list[JsonObject] = field(default_factory=list)
    account_data: list[JsonObject] = field(default_factory=list)
    unread: JsonObject = field(default_factory=dict)
    joined_users: set[str] = field(default_factory=set)
    """Users with whom the client now shares this encrypted room."""
    left_users: set[str] = field(default_factory=set)
    """Users with whom it no longer does."""
    is_news: bool = False
    """Something to be told though nothing else is in here."""

    @property
    def is_empty(self) -> bool:
        return not (
            self.timeline
            or self.state
            or self.summary
            or self.ephemeral
            or self.account_data
            or self.limited
            or self.is_news
        )
