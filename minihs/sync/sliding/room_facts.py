# SPDX-License-Identifier: Apache-2.0
"""What a room list shows of a room besides its events: name, avatar, heroes, counts, the time of its last
activity (MSC4186, "RoomResult")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.store import room_activity, state, sync_rooms, timeline
from minihs.sync import unread as unread_counts
from minihs.sync.room_list import RoomTask, Section
from minihs.sync.sliding.context import SlidingContext
from minihs.sync.sliding.room_list import Wanted
from minihs.sync.sliding.room_state import StateNews
from minihs.sync.summary import heroes
from minihs.sync.unread import Unread

NAMES = {"name": ("m.room.name", "name"), "avatar": ("m.room.avatar", "url")}
"""field → (state event type, property of its content)."""


def room_facts(context: SlidingContext, task: RoomTask, news: StateNews) -> JsonObject:
    """Everything, of a room that is told from the start; else what changed."""
    db, is_first = context.db, task.since is None
    keys = {name: context.key(type, "") for name, (type, _) in NAMES.items()}
    changed = {name for name, key in keys.items() if key in news.changes}
    members_changed = task.just_completed or bool(context.facts.member_keys(db, news.changes.keys()))
    facts: JsonObject = {}
    if not (is_first or changed or members_changed):
        return facts
    values = _names(context, news, keys)
    for name, value in values.items():
        if name in changed or (is_first and value is not None):
            facts[name] = value
    if task.section is not Section.JOIN:
        return facts  # who is there now is none of the business of those who left
    if is_first or members_changed:
        facts["joined_count"] = sync_rooms.joined_count(db, task.room_nid)
        facts["invited_count"] = sync_rooms.invited_count(db, task.room_nid)
    if values["name"] is None and (is_first or members_changed or "name" in changed):
        facts["heroes"] = _heroes(context, task, news)
    return facts


def activity(context: SlidingContext, wanted: Wanted, task: RoomTask) -> JsonObject:
    """`bump_stamp`, if it may have changed."""
    room = wanted.room
    if task.section is not Section.JOIN:
        return {"bump_stamp": room.pos}
    found = room_activity.last_bump(context.db, room.room_nid, task.since or 0, task.upto)
    if found is None and task.since is None:
        found = room.pos  # nothing was said yet: since the user came
    return {} if found is None else {"bump_stamp": found}


def notifications(context: SlidingContext, task: RoomTask, unread: Unread) -> JsonObject:
    """`notification_count` and `highlight_count`, over all threads."""
    counts = unread.counts(
        context.db, context.user_id, task.room_nid, task.room_id, task.upto, context.ignored
    )
    total: JsonObject = unread_counts.in_sync(counts, by_thread=False)["unread_notifications"]
    return total


def _names(context: SlidingContext, news: StateNews, keys: dict[str, int | None]) -> dict[str, str | None]:
    db = context.db
    wanted = {key for key in keys.values() if key is not None}
    nids = {} if news.end is None else state.lookup(db, news.end, wanted)
    bodies = timeline.bodies(db, set(nids.values()))
    return {name: _text(bodies, nids.get(keys[name] or 0), prop) or None for name, (_, prop) in NAMES.items()}


def _heroes(context: SlidingContext, task: RoomTask, news: StateNews) -> list[JsonObject]:
    db = context.db
    users = heroes(db, task.room_nid, context.user_id)
    keys = timeline.member_keys(db, users)
    nids = {} if news.end is None else state.lookup(db, news.end, keys.values())
    bodies = timeline.bodies(db, set(nids.values()))
    found = []
    for user_id in users:
        hero: JsonObject = {"user_id": user_id}
        for field in ("displayname", "avatar_url"):
            value = _text(bodies, nids.get(keys.get(user_id, 0)), field)
            if value is not None:
                hero[field] = value
        found.append(hero)
    return found


def _text(bodies: Mapping[int, tuple[str, JsonObject]], nid: int | None, prop: str) -> str | None:
    """A property of an event's content, if there is such an event, and a text in it."""
    content: Any = bodies[nid][1].get("content") if nid is not None and nid in bodies else None
    value = content.get(prop) if isinstance(content, dict) else None
    return value if isinstance(value, str) else None
