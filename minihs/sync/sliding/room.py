# SPDX-License-Identifier: Apache-2.0
"""One room in an answer of sliding sync: whether there is news of it, and what (MSC4186, "Room results")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minihs.matrix.canonical import JsonObject
from minihs.store import timeline
from minihs.store.timeline import EventRow
from minihs.sync.room_list import RoomTask, Section, one_room
from minihs.sync.selection import TimelineEnd, timeline_end
from minihs.sync.sliding import room_facts
from minihs.sync.sliding.connections import Known
from minihs.sync.sliding.context import SlidingContext
from minihs.sync.sliding.required_state import MEMBER
from minihs.sync.sliding.room_list import Wanted
from minihs.sync.sliding.room_state import state_news
from minihs.sync.stripped import stripped_state
from minihs.sync.tokens import SyncToken
from minihs.sync.unread import Unread


@dataclass(slots=True)
class RoomNews:
    """What an answer says of a room, before its events are made."""

    wanted: Wanted
    known: Known
    """What the client knows of the room once it has the answer."""
    entry: JsonObject = field(default_factory=dict)
    """What is no event."""
    timeline: Sequence[EventRow] = ()
    state: list[int] = field(default_factory=list)
    """Event nids."""
    gone: set[int] = field(default_factory=set)
    """key_nids of what is in the state no more."""
    is_told: bool = False
    """There is something that the client has to hear."""


def has_news(context: SlidingContext, wanted: Wanted) -> bool:
    """Is there reason to look closer? Looks at nothing but what the list of rooms says."""
    known, room = context.known.get(wanted.room.room_nid), wanted.room
    if known is None or room.pos > known.upto:
        return True
    if room.membership != "join":
        return False
    fulfilled = dict(known.wishes)
    return (
        max(room.last_event, room.last_state, room.own_receipt) > known.upto
        or wanted.is_dm != known.is_dm
        or wanted.timeline_limit > known.limit
        or any(room.last_state > fulfilled.get(number, -1) for number in wanted.wishes)
    )


def room_news(context: SlidingContext, wanted: Wanted, unread: Unread) -> RoomNews:
    """Of a room that has_news."""
    room, known = wanted.room, context.known.get(wanted.room.room_nid)
    since = None if known is None else known.upto or None
    task = one_room(context.db, context.user_id, room.as_membership, since, context.upto)
    if task is None:
        if known is None:
            raise LookupError(f"nothing to tell of {room.room_id}, which was never told of")
        return RoomNews(wanted, known._replace(upto=context.upto))
    if task.section in (Section.INVITE, Section.KNOCK):
        return _from_outside(context, wanted, task, known)
    if task.section is Section.LEAVE and not task.was_member:
        return _only_own_leave(context, wanted, task, known)
    return _from_inside(context, wanted, task, known, unread)


def _from_outside(context: SlidingContext, wanted: Wanted, task: RoomTask, known: Known | None) -> RoomNews:
    """An invite or a knock."""
    state = stripped_state(context.db, task.room_nid, context.user_id, task.member_nid)
    entry: JsonObject = {
        "initial": True,
        "stripped_state" if context.request.is_stable else "invite_state": state,
        **room_facts.activity(context, wanted, task),
    }
    if wanted.is_dm:
        entry["is_dm"] = True
    return RoomNews(wanted, _known(context, wanted, known, first=context.upto + 1), entry, is_told=True)


def _only_own_leave(context: SlidingContext, wanted: Wanted, task: RoomTask, known: Known | None) -> RoomNews:
    """A rejected or withdrawn invite or knock, or a ban of a stranger: the room is not theirs to see."""
    rows = list(timeline.rows_of(context.db, [task.member_nid]).values())
    news = RoomNews(
        wanted, _known(context, wanted, known, first=context.upto + 1), timeline=rows, is_told=True
    )
    news.entry = {"prev_batch": str(SyncToken(task.upto)), **room_facts.activity(context, wanted, task)}
    if any(wish.wants(MEMBER, context.user_id) or wish.lazy for wish in wanted.wishes.values()):
        news.state = [row.nid for row in rows]
    return news


def _from_inside(
    context: SlidingContext, wanted: Wanted, task: RoomTask, known: Known | None, unread: Unread
) -> RoomNews:
    if task.since is None:
        known = None  # left and joined again: nothing that the client has can be built upon
    end, is_expanded = _timeline(context, wanted, task, known)
    state = state_news(context, task, wanted.wishes, known, end.rows, limited=end.limited)
    news = RoomNews(wanted, _known_after(context, wanted, known, task, end, is_expanded=is_expanded))
    news.known = news.known._replace(wishes=state.wishes)
    news.timeline, news.state, news.gone = end.rows, list(state.send.values()), state.gone

    entry = room_facts.room_facts(context, task, state)
    if task.since is None:
        entry["initial"] = True
    if is_expanded:
        entry["expanded_timeline" if context.request.is_stable else "unstable_expanded_timeline"] = True
    if wanted.is_dm != (known is not None and known.is_dm):
        entry["is_dm"] = wanted.is_dm
    has_read = known is not None and wanted.room.own_receipt > known.upto
    news.is_told = bool(entry or news.timeline or news.state or news.gone or end.limited or has_read)
    if not news.is_told:
        return news
    if news.timeline or end.limited:
        entry["prev_batch"], entry["limited"] = end.prev_batch, end.limited
        since = 0 if context.since is None else context.since.pos
        live = [row for row in end.rows if (row.arrival or 0) > since]
        entry["num_live"] = 0 if context.since is None else len(live)
    entry.update(room_facts.activity(context, wanted, task))
    if task.section is Section.JOIN:
        entry.update(room_facts.notifications(context, task, unread))
    news.entry = entry
    return news


def _timeline(
    context: SlidingContext, wanted: Wanted, task: RoomTask, known: Known | None
) -> tuple[TimelineEnd, bool]:
    """And whether it goes back further than what the client has, since it asks for more than before."""
    limit = wanted.timeline_limit
    end = timeline_end(context.selector, task.room_nid, task.since, task.upto, limit)
    if known is None or end.limited or limit <= known.limit:
        return end, False
    whole = timeline_end(context.selector, task.room_nid, None, task.upto, limit)
    if not whole.rows or whole.first_arrival(task.upto) >= known.first:
        return end, False
    # Clients take `limited` as the sign that what they have may come again.
    return TimelineEnd(whole.rows, True, whole.prev_batch), True


def _known_after(
    context: SlidingContext,
    wanted: Wanted,
    known: Known | None,
    task: RoomTask,
    end: TimelineEnd,
    *,
    is_expanded: bool,
) -> Known:
    if known is None or is_expanded or end.limited:
        return _known(context, wanted, known, first=end.first_arrival(task.upto))
    limit = max(known.limit, wanted.timeline_limit)
    return known._replace(upto=context.upto, limit=limit, is_dm=wanted.is_dm)


def _known(context: SlidingContext, wanted: Wanted, known: Known | None, *, first: int) -> Known:
    """After the latest events were sent from `first` on."""
    new = Known(context.upto, first, wanted.timeline_limit, wanted.is_dm, ())
    return new if known is None else new._replace(receipts=known.receipts, data=known.data)
