# SPDX-License-Identifier: Apache-2.0
"""One joined or left room in an answer of /sync: its timeline, its state, and what else there is to tell."""

from __future__ import annotations

from collections.abc import Sequence

from minihs.store import account_data, receipts, timeline
from minihs.store.account_data import AccountData
from minihs.sync import device_news, selection
from minihs.sync import unread as unread_counts
from minihs.sync.context import RoomPart, SyncContext
from minihs.sync.receipts import receipt_events
from minihs.sync.room_list import RoomTask, Section
from minihs.sync.room_state import MEMBER, RoomState, lazily, room_state
from minihs.sync.selection import Selector
from minihs.sync.summary import summary
from minihs.sync.tokens import SyncToken
from minihs.sync.typing import typing_event
from minihs.sync.unread import Shown, Unread

MAX_RECEIPTS = 1000
"""Receipts of one room in one answer: those moved last."""


def build_part(context: SyncContext, task: RoomTask, unread: Unread, news: Sequence[AccountData]) -> RoomPart:
    """`news`: the room's account data that changed."""
    part = RoomPart(task)
    if task.section is Section.LEAVE and not task.was_member:
        _only_own_leave(context, part)
        return part
    _fill_timeline(context, part)
    found = room_state(context, part)
    members_changed = _members_changed(context, part, found)
    joined = task.section is Section.JOIN
    if joined and (
        task.since is None or context.request.full_state or members_changed or task.just_completed
    ):
        part.summary = summary(context.db, task.room_nid, context.user_id, group=found.end)
    if context.request.filter.lazy_load_members:
        shown = part.summary.get("m.heroes", ())
        part.state = list(lazily(context, part, found, shown).values())
    else:
        part.state = list(found.send.values())
    _fill_account_data(context, part, news)
    if joined:
        _fill_ephemeral(context, part)
        if task.since is None or context.request.full_state or not part.is_empty:
            _fill_unread(context, part, unread, found.end)
    if context.since is not None:
        part.joined_users, part.left_users = device_news.through_room(
            context.db, context.facts, task, found.changes, found.end
        )
    part.is_news = part.is_news or task.since is None or context.request.full_state
    return part


def _fill_timeline(context: SyncContext, part: RoomPart) -> None:
    task, wanted = part.task, context.request.filter
    if not wanted.timeline.allows_room(task.room_id):
        part.prev_batch = str(SyncToken(task.upto))
        return
    select = Selector(context.db, context.facts, context.user_id, wanted.timeline, context.ignored)
    end = selection.timeline_end(select, task.room_nid, task.since, task.upto, wanted.timeline_limit)
    part.timeline, part.limited, part.prev_batch = end.rows, end.limited, end.prev_batch


def _only_own_leave(context: SyncContext, part: RoomPart) -> None:
    """A rejected or withdrawn invite or knock, or a ban of a stranger: the room is not theirs to see."""
    rows = timeline.rows_of(context.db, [part.task.member_nid])
    part.timeline = list(rows.values())
    part.prev_batch = str(SyncToken(part.task.upto))
    part.is_news = True


def _members_changed(context: SyncContext, part: RoomPart, found: RoomState) -> bool:
    if any(row.type == MEMBER for row in part.timeline):
        return True
    return bool(context.facts.member_keys(context.db, found.changes))


def _fill_ephemeral(context: SyncContext, part: RoomPart) -> None:
    task, wanted, typing = part.task, context.request.filter.ephemeral, context.typing
    changed = receipts.changed(context.db, task.room_nid, task.since or 0, task.upto, MAX_RECEIPTS)
    # One's own receipt changes the counts, even where the filter hides receipts.
    part.is_news = part.is_news or any(receipt.user_id == context.user_id for receipt in changed)
    if not wanted.allows_room(task.room_id):
        return
    if wanted.allows("m.receipt"):
        others = [receipt for receipt in changed if receipt.user_id not in context.ignored]
        part.ephemeral.extend(receipt_events(others, context.user_id))
    if not wanted.allows("m.typing"):
        return
    users = typing.users.get(task.room_id)
    if users is not None:
        part.ephemeral.append(typing_event(user for user in users if user not in context.ignored))
    elif typing.forgotten and not part.is_empty:
        part.ephemeral.append(typing_event(()))


def _fill_account_data(context: SyncContext, part: RoomPart, news: Sequence[AccountData]) -> None:
    wanted = context.request.filter.room_account_data
    if not wanted.allows_room(part.task.room_id):
        return
    if context.since is not None and part.task.since is None:
        news = account_data.of_room(context.db, context.user_id, part.task.room_id)
    part.account_data = [
        {"type": item.type, "content": item.content} for item in news if wanted.allows(item.type)
    ]


def _shows_all(context: SyncContext, task: RoomTask) -> bool:
    """Whether the filter lets all events of the room pass."""
    wanted = context.request.filter.timeline
    return wanted.passes_all and wanted.allows_room(task.room_id)


def _fill_unread(context: SyncContext, part: RoomPart, unread: Unread, end: int | None) -> None:
    """`end`: the state group at the end of the timeline."""
    task = part.task
    shown = None
    if task.since is not None and not part.limited and not context.ignored and _shows_all(context, task):
        shown = Shown(task.since, part.timeline, end)
    counts = unread.counts(
        context.db, context.user_id, task.room_nid, task.room_id, task.upto, context.ignored, shown
    )
    by_thread = context.request.filter.timeline.unread_thread_notifications
    part.unread = unread_counts.in_sync(counts, by_thread=by_thread)
