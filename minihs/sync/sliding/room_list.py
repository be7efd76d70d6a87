# SPDX-License-Identifier: Apache-2.0
"""Which rooms an answer may speak of: those in the windows of the client's lists, and those it subscribed to
(MSC4186, "Lists and subscriptions").

The list is sorted by the last event of each room, not by `bump_stamp`: so whatever happens in a room brings
it to the top, and a client that watches the top misses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minihs.store import room_activity, sync_rooms
from minihs.store.room_activity import RoomActivity
from minihs.sync import visibility
from minihs.sync.room_list import GONE
from minihs.sync.sliding.context import SlidingContext
from minihs.sync.sliding.list_filters import FilterFacts
from minihs.sync.sliding.request import RoomWish
from minihs.sync.sliding.required_state import StateWish
from minihs.sync.stripped import invites_blocked


@dataclass(slots=True)
class Wanted:
    """A room that matches at least one rule, and what the rules ask of it together."""

    room: RoomActivity
    is_dm: bool
    timeline_limit: int = 0
    wishes: dict[int, StateWish] = field(default_factory=dict)
    """By StateWish.key. State is sent if any of them wants it."""
    lists: list[str] = field(default_factory=list)
    is_subscribed: bool = False

    def add(self, wish: RoomWish) -> None:
        self.timeline_limit = max(self.timeline_limit, wish.timeline_limit)
        self.wishes[wish.state.key] = wish.state


@dataclass(frozen=True, slots=True)
class Matches:
    rooms: list[Wanted]
    """The newest first."""
    counts: dict[str, int]
    """list → how many rooms it has in all."""


def matches(context: SlidingContext) -> Matches:
    """All rooms that the request's rules match."""
    rooms = room_activity.of_user(context.db, context.user_id)
    rooms.sort(key=lambda room: (room.last_event or room.pos, room.room_nid), reverse=True)
    listed = _listed(context, rooms)
    facts = FilterFacts(context)
    found: dict[int, Wanted] = {}

    def want(room: RoomActivity, wish: RoomWish) -> Wanted:
        wanted = found.get(room.room_nid)
        if wanted is None:
            wanted = found[room.room_nid] = Wanted(room, room.room_id in facts.direct_rooms)
        wanted.add(wish)
        return wanted

    counts: dict[str, int] = {}
    for name, wish in context.request.lists.items():
        passing = [room for room in listed if facts.passes(wish.filter, room)]
        counts[name] = len(passing)
        windows = [(0, len(passing))] if wish.ranges is None else wish.ranges
        for first, last in windows:
            for room in passing[first : last + 1]:
                wanted = want(room, wish.rooms)
                if name not in wanted.lists:
                    wanted.lists.append(name)
    for room in rooms:
        subscription = context.request.subscriptions.get(room.room_id)
        if subscription is not None and _may_be_told(context, room):
            want(room, subscription).is_subscribed = True
    return Matches([found[room.room_nid] for room in rooms if room.room_nid in found], counts)


def _listed(context: SlidingContext, rooms: list[RoomActivity]) -> list[RoomActivity]:
    """Those of the user's rooms that belong in lists."""
    blocked = invites_blocked(context.db, context.user_id)
    found = []
    for room in rooms:
        if room.membership == "invite" and (blocked or room.sender in context.ignored):
            continue
        if room.membership in GONE and not _is_news(context, room):
            continue
        found.append(room)
    return found


def _is_news(context: SlidingContext, room: RoomActivity) -> bool:
    """Of a room that the user is no longer in. Their own leave is none, a kick or a ban is; unless they never
    were in the room."""
    if room.room_nid in context.known:
        return True
    return room.sender != context.user_id and _was_joined(context, room)


def _may_be_told(context: SlidingContext, room: RoomActivity) -> bool:
    if room.membership == "invite":
        return room.sender not in context.ignored and not invites_blocked(context.db, context.user_id)
    if room.membership in GONE:
        return room.room_nid in context.known or _was_joined(context, room)
    return True


def _was_joined(context: SlidingContext, room: RoomActivity) -> bool:
    spans = sync_rooms.spans(context.db, context.user_id, room.room_nid)
    return visibility.left_at(spans) is not None
