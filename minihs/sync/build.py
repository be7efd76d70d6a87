# SPDX-License-Identifier: Apache-2.0
"""One answer of /sync, from beginning to end (client-server-api, "Syncing").

1. Which rooms, in which section (`room_list`).
2. For each, which events and what else (`room_part`, `stripped`).
3. All those events at once, in their client form (`client_events`).
4. What is about the user or the device: account data, to-device messages, device lists, key counts.

Reads only; the same function serves the loop and, for large answers, a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.store import account_data, one_time_keys, timeline, to_device
from minihs.store.account_data import AccountData
from minihs.store.timeline import EventRow
from minihs.sync import device_news, room_list
from minihs.sync.client_events import client_events, federation_event
from minihs.sync.context import RoomPart, SyncContext
from minihs.sync.filters import prune
from minihs.sync.room_list import RoomTask, Section
from minihs.sync.room_part import build_part
from minihs.sync.room_state import fits_filter
from minihs.sync.stripped import invite_or_knock
from minihs.sync.tokens import SyncToken
from minihs.sync.unread import Unread

TO_DEVICE_LIMIT = 100


class Built(NamedTuple):
    answer: JsonObject
    next_batch: str
    is_empty: bool
    """Nothing that a waiting client would want to be woken for."""
    has_all: bool
    """Nor is there anything that the device has to confirm: it had no messages."""


def build(context: SyncContext, unread: Unread) -> Built:
    db, since = context.db, context.since
    global_data: list[JsonObject] = []
    sections: dict[Section, dict[str, JsonObject]] = {section: {} for section in Section}
    changed: list[str] = []
    left: list[str] = []
    if not context.is_caught_up:
        global_data, room_data = _account_data(context)
        parts = _rooms(context, unread, room_data, sections)
        changed, left = _device_lists(context, parts)
    presence = [
        event
        for event in context.presence
        if context.request.filter.presence.allows(event["type"], event["sender"])
        and event["sender"] not in context.ignored
    ]
    messages, token = _to_device(context)
    user_id, device_id = context.user_id, context.request.viewer.device_id
    counts = {"signed_curve25519": 0, **one_time_keys.counts(db, user_id, device_id)}
    fallback = one_time_keys.unused_fallback_types(db, user_id, device_id)
    answer: JsonObject = {
        "next_batch": str(token),
        "account_data": {"events": global_data},
        "presence": {"events": presence},
        "to_device": {"events": messages},
        "device_lists": {"changed": changed, "left": left},
        "device_one_time_keys_count": counts,
        "device_unused_fallback_key_types": fallback,
        # The name from before the spec had it; clients that know only this one still sync.
        "org.matrix.msc2732.device_unused_fallback_key_types": fallback,
        "rooms": {section.value: rooms for section, rooms in sections.items()},
    }
    is_empty = since is not None and not (
        any(sections.values()) or global_data or presence or messages or changed or left
    )
    return Built(answer, str(token), is_empty, has_all=not messages)


def _rooms(
    context: SyncContext,
    unread: Unread,
    room_data: dict[str, list[AccountData]],
    sections: dict[Section, dict[str, JsonObject]],
) -> list[RoomPart]:
    """Puts the rooms into their sections. Returns joined and left ones with news, for the device lists."""
    parts: list[RoomPart] = []
    for task in _tasks(context, room_data):
        if not context.request.filter.allows_room(task.room_id):
            continue
        if task.section in (Section.INVITE, Section.KNOCK):
            entry = invite_or_knock(context, task)
            if entry is not None:
                sections[task.section][task.room_id] = entry
            continue
        part = build_part(context, task, unread, room_data.get(task.room_id, ()))
        if not part.is_empty or part.joined_users or part.left_users:
            parts.append(part)
    for part, entry in zip(parts, _entries(context, parts), strict=True):
        if not part.is_empty:
            sections[part.task.section][part.task.room_id] = entry
    return parts


def _tasks(context: SyncContext, room_data: dict[str, list[AccountData]]) -> list[RoomTask]:
    wanted = context.request.filter
    if context.since is None:
        tasks = room_list.first_rooms(
            context.db, context.user_id, context.upto, include_leave=wanted.include_leave
        )
    else:
        tasks = room_list.rooms_with_changes(
            context.db,
            context.user_id,
            context.since,
            context.upto,
            also=context.typing.users.keys() | room_data.keys(),
            all_joined=context.request.full_state,
        )
    return tasks if wanted.lazy_load_members else room_list.for_clients_that_want_all_members(tasks)


def _account_data(
    context: SyncContext,
) -> tuple[list[JsonObject], dict[str, list[AccountData]]]:
    wanted = context.request.filter.account_data
    everywhere: list[JsonObject] = []
    by_room: dict[str, list[AccountData]] = {}
    for item in account_data.changed(context.db, context.user_id, context.since or 0, context.upto):
        if item.room_id != account_data.GLOBAL:
            by_room.setdefault(item.room_id, []).append(item)
        elif wanted.allows(item.type):
            everywhere.append({"type": item.type, "content": item.content})
    return everywhere, by_room


def _entries(context: SyncContext, parts: Sequence[RoomPart]) -> list[JsonObject]:
    """The entries of joined and left rooms."""
    state_rows = timeline.rows_of(context.db, {nid for part in parts for nid in part.state})
    states = [
        fits_filter(context, part, [state_rows[nid] for nid in part.state if nid in state_rows])
        for part in parts
    ]
    shown = {row.nid: row for part in parts for row in part.timeline}
    rows: dict[int, EventRow] = {**{row.nid: row for each in states for row in each}, **shown}
    summed = {row.nid for part in parts if part.limited for row in part.timeline}
    events = _make_events(context, rows, set(shown), summed)
    return [_entry(context, part, state, events) for part, state in zip(parts, states, strict=True)]


def _make_events(
    context: SyncContext, rows: dict[int, EventRow], shown: set[int], summed: set[int]
) -> dict[int, JsonObject]:
    """`summed`: events of which the client did not get all that came after them, and with it their
    relations."""
    events = client_events(
        context.db,
        context.facts,
        rows.values(),
        viewer=context.request.viewer,
        now_ms=context.now_ms,
        room_ids=None,
        timeline_nids=shown,
        summed_nids=summed,
    )
    wanted = context.request.filter
    if wanted.federation_format:
        for nid, (event_id, pdu) in timeline.bodies(context.db, events).items():
            events[nid] = federation_event(event_id, pdu, events[nid]["unsigned"])
    elif wanted.event_fields is not None:
        for nid, event in events.items():
            events[nid] = prune(event, wanted.event_fields)
    return events


def _entry(
    context: SyncContext, part: RoomPart, state: Sequence[EventRow], events: dict[int, JsonObject]
) -> JsonObject:
    entry: dict[str, Any] = {
        "timeline": {
            "events": [events[row.nid] for row in part.timeline if row.nid in events],
            "limited": part.limited,
            "prev_batch": part.prev_batch,
        },
        context.request.state_name: {"events": [events[row.nid] for row in state if row.nid in events]},
        "account_data": {"events": part.account_data},
    }
    if part.task.section is Section.JOIN:
        entry["ephemeral"] = {"events": part.ephemeral}
        entry["summary"] = part.summary
        entry.update(part.unread)
    return entry


def _to_device(context: SyncContext) -> tuple[list[JsonObject], SyncToken]:
    """Waiting messages, and the token for what comes next: behind, if there are more of them."""
    viewer, since = context.request.viewer, context.request.since
    token = SyncToken(context.upto, context.typing.serial)
    have = 0 if since is None else (since.pos if since.to_device is None else since.to_device)
    found = to_device.read(context.db, viewer.user_id, viewer.device_id, have, context.upto, TO_DEVICE_LIMIT)
    if len(found) == TO_DEVICE_LIMIT:
        token = token._replace(to_device=found[-1][0])
    return [event for _, event in found], token


def _device_lists(context: SyncContext, parts: Sequence[RoomPart]) -> tuple[list[str], list[str]]:
    """(changed, left): whose devices the client must ask for anew, and whose it can forget."""
    if context.since is None:
        return [], []
    joined: set[str] = set()
    left: set[str] = set()
    for part in parts:
        joined |= part.joined_users
        left |= part.left_users
    return device_news.changed_and_left(
        context.db, context.user_id, context.since, context.upto, joined, left
    )
