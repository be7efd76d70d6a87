# SPDX-License-Identifier: Apache-2.0
"""One answer of sliding sync, from beginning to end (MSC4186).

1. Which rooms the request's rules match (`room_list`).
2. Of those with news, what there is to tell (`room`).
3. All those events at once, in their client form.
4. The extensions.

Reads only; the same function serves the loop and, for large answers, a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minihs.matrix.canonical import JsonObject
from minihs.store import ids, timeline
from minihs.store.database import TooLong
from minihs.sync.client_events import client_events
from minihs.sync.sliding import room_list
from minihs.sync.sliding.connections import Delivery, Known, Settled
from minihs.sync.sliding.context import SlidingContext
from minihs.sync.sliding.extensions import Extended, Rooms, extend
from minihs.sync.sliding.room import RoomNews, has_news, room_news
from minihs.sync.sliding.room_list import Matches
from minihs.sync.unread import Unread


@dataclass(frozen=True, slots=True)
class Built:
    answer: JsonObject
    """Without `pos`."""
    delivery: Delivery
    is_empty: bool
    """Nothing that a waiting client would want to be woken for."""


def build(context: SlidingContext, unread: Unread, max_rooms: int | None) -> Built:
    """Raises TooLong if more than `max_rooms` have news."""
    found = _matches(context)
    changed = [wanted for wanted in found.rooms if has_news(context, wanted)]
    if max_rooms is not None and len(changed) > max_rooms:
        raise TooLong
    news = [room_news(context, wanted, unread) for wanted in changed]
    told = [each for each in news if each.is_told]
    entries = _entries(context, told)

    known: dict[int, Known] = {each.wanted.room.room_nid: each.known for each in news}
    shown = {
        each.wanted.room.room_nid: frozenset(event["event_id"] for event in entry.get("timeline", ()))
        for each, entry in zip(told, entries, strict=True)
    }

    def known_after(room_nid: int) -> Known | None:
        return known.get(room_nid) or context.known.get(room_nid)

    extended = extend(context, Rooms(found.rooms, known_after, shown))
    answer: JsonObject = {
        "lists": {name: {"count": count} for name, count in found.counts.items()},
        "rooms": {each.wanted.room.room_id: entry for each, entry in zip(told, entries, strict=True)},
        "extensions": extended.answer,
    }
    return Built(
        answer, _delivery(context, found, known, extended), is_empty=not told and not extended.has_news
    )


def _matches(context: SlidingContext) -> Matches:
    """None at all, without looking, if the client asks for none, as one for encryption only does, or asked
    the same at this very position before."""
    request, settled = context.request, context.settled
    if not request.lists and not request.subscriptions:
        return Matches([], {})
    is_same = (
        settled is not None
        and settled.upto == context.upto
        and settled.digest == request.digest
        and not context.typing.changed
    )
    if settled is not None and is_same:
        return Matches([], dict(settled.counts))
    return room_list.matches(context)


def _delivery(
    context: SlidingContext, found: Matches, known: dict[int, Known], extended: Extended
) -> Delivery:
    settled = Settled(context.request.digest, context.upto, found.counts)
    return Delivery({**known, **extended.known}, extended.data, settled)


def _entries(context: SlidingContext, told: Sequence[RoomNews]) -> list[JsonObject]:
    rows = {row.nid: row for each in told for row in each.timeline}
    shown = set(rows)
    rows |= timeline.rows_of(context.db, {nid for each in told for nid in each.state} - shown)
    events = client_events(
        context.db,
        context.facts,
        rows.values(),
        viewer=context.viewer,
        now_ms=context.now_ms,
        room_ids=None,
        timeline_nids=shown,
        summed_nids={row.nid for each in told if each.entry.get("limited") for row in each.timeline},
    )
    return [_entry(context, each, events) for each in told]


def _entry(context: SlidingContext, news: RoomNews, events: dict[int, JsonObject]) -> JsonObject:
    entry = dict(news.entry)
    if news.timeline:
        entry["timeline"] = [events[row.nid] for row in news.timeline if row.nid in events]
    state = [events[nid] for nid in news.state if nid in events]
    if context.request.is_stable:
        entry["membership"] = news.wanted.room.membership
        if news.wanted.lists:
            entry["lists"] = news.wanted.lists
        # Clients of the unstable path take anything in here for a whole event.
        gone = ids.state_keys(context.db, news.gone).values()
        state += [{"type": type, "state_key": state_key} for type, state_key in gone]
    if state:
        entry["required_state"] = state
    return entry
