# SPDX-License-Identifier: Apache-2.0
"""The state that goes with a room: current values, as far as the client wants them and does not have them
(MSC4186, "required_state" and "Lazy loaded memberships").

Every wish is followed by itself: of one that the client made before, what changed since it was last
fulfilled; of a new one, all. (Also where it speaks of members, and not all of them were known then.) So a
client that subscribes to a room now and then gets what it missed, and not all of it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from minihs.store import ids, state, timeline
from minihs.store.timeline import EventRow
from minihs.sync.room_list import RoomTask
from minihs.sync.room_state import Change, changes_between, changes_since, state_at_end, unknown_senders
from minihs.sync.sliding.connections import Known
from minihs.sync.sliding.context import SlidingContext
from minihs.sync.sliding.required_state import MEMBER, StateWish

MAX_KEYS_OF_TYPE = 500
"""State keys of one type, in all rooms, that are looked up one by one; with more, the room's whole state is
read."""

MAX_WISHES = 4
"""Wishes remembered of one room, those of the last request apart; one that is forgotten is fulfilled from the
start when it is made again."""


@dataclass(slots=True)
class StateNews:
    end: int | None
    """The state group at the end."""
    changes: dict[int, Change]
    """All that changed since the client last heard of the room."""
    send: dict[int, int] = field(default_factory=dict)
    """key_nid → event_nid."""
    gone: set[int] = field(default_factory=set)
    """Keys that are in the state no more."""
    wishes: tuple[tuple[int, int], ...] = ()
    """For Known.wishes."""


def state_news(
    context: SlidingContext,
    task: RoomTask,
    wishes: Mapping[int, StateWish],
    known: Known | None,
    rows: Iterable[EventRow],
    *,
    limited: bool,
) -> StateNews:
    """`known`: None for a room that is told from the start. `rows`: the timeline that is shown."""
    db = context.db
    end = state_at_end(db, task)
    news = StateNews(end, changes_since(db, task, end))
    before = dict(known.wishes) if known is not None else {}
    news.wishes = _remember(before, wishes, context.upto)
    if end is None:
        return news
    by_pos: dict[int, dict[int, Change]] = {} if task.since is None else {task.since: news.changes}
    for number, wish in wishes.items():
        pos = before.get(number)
        if pos is None or (task.completed is not None and pos < task.completed and wish.names_members):
            news.send.update(_whole(context, end, wish))
            continue
        if pos not in by_pos:
            by_pos[pos] = changes_between(db, timeline.state_at_pos(db, task.room_nid, pos), end)
        _changed(context, wish, by_pos[pos], news)
    if task.since is None and task.room_nid in context.known:
        context.members.forget(task.room_nid)
    if any(wish.lazy for wish in wishes.values()):
        _add_members(context, task, news, rows, limited=limited)
    _note_members(context, task, news)
    return news


def _remember(before: dict[int, int], wishes: Collection[int], upto: int) -> tuple[tuple[int, int], ...]:
    now = {**before, **dict.fromkeys(wishes, upto)}
    newest = sorted(now.items(), key=lambda item: (item[1], item[0]), reverse=True)
    return tuple(newest[: max(MAX_WISHES, len(wishes))])


def _whole(context: SlidingContext, end: int, wish: StateWish) -> dict[int, int]:
    """All that a wish wants of a state."""
    db, types = context.db, wish.whole_types
    keys: set[int] | None = {key for each in wish.exact if (key := context.key(*each)) is not None}
    for type in types or ():
        found = context.keys_of_type(type, MAX_KEYS_OF_TYPE)
        keys = None if keys is None or len(found) == MAX_KEYS_OF_TYPE else keys.union(found)
    if types is None or keys is None:
        whole = state.read_group(db, end)
        names = ids.state_keys(db, whole)
        return {key: nid for key, nid in whole.items() if wish.wants(*names[key])}
    found_nids = state.lookup(db, end, keys)
    if not wish.exclude:
        return found_nids
    names = ids.state_keys(db, found_nids)
    return {key: nid for key, nid in found_nids.items() if wish.wants(*names[key])}


def _changed(
    context: SlidingContext, wish: StateWish, changes: Mapping[int, Change], news: StateNews
) -> None:
    names = ids.state_keys(context.db, changes)
    for key, change in changes.items():
        if not wish.wants(*names[key]):
            continue
        if change.after is None:
            news.gone.add(key)
        else:
            news.send[key] = change.after


def _add_members(
    context: SlidingContext, task: RoomTask, news: StateNews, rows: Iterable[EventRow], *, limited: bool
) -> None:
    """Whoever the timeline speaks of, unless the client has them; and, if nothing is missing there, every
    change of a member."""
    db, facts = context.db, context.facts
    rows = list(rows)
    keys = set(timeline.member_keys(db, {row.sender for row in rows}).values())
    keys |= {row.key_nid for row in rows if row.type == MEMBER and row.key_nid is not None}
    if not limited:
        keys |= facts.member_keys(db, news.changes.keys())
    keys -= news.send.keys()
    if news.end is None:
        return
    found = state.lookup(db, news.end, keys)
    for key, nid in found.items():
        if task.since is None or not context.members.has(task.room_nid, key, nid):
            news.send[key] = nid
    news.gone |= {key for key in keys & news.changes.keys() if news.changes[key].after is None}
    if task.partial:
        for key, nid in unknown_senders(db, rows, news.end).items():
            news.send.setdefault(key, nid)


def _note_members(context: SlidingContext, task: RoomTask, news: StateNews) -> None:
    for key in context.facts.member_keys(context.db, news.send.keys()):
        context.members.add(task.room_nid, key, news.send[key])
