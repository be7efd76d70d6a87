# SPDX-License-Identifier: Apache-2.0
"""Rooms that the user may not read yet: invites and knocks, shown by stripped state
(client-server-api, "Stripped state")."""

from __future__ import annotations

import json
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.store import account_data, ids, state, sync_rooms, timeline
from minihs.store.reader import Reader
from minihs.store.timeline import NEWEST
from minihs.sync.client_events import stripped
from minihs.sync.context import SyncContext
from minihs.sync.room_list import RoomTask, Section

STRIPPED_TYPES = (
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
)

MAX_STRIPPED = 100
"""Stripped events of another server that are shown: eight or so are usual."""


def invite_or_knock(context: SyncContext, task: RoomTask) -> JsonObject | None:
    """The room's entry in its section; None: the user does not want to see it."""
    rows = timeline.rows_of(context.db, [task.member_nid])
    if task.section is Section.INVITE:
        sender = rows[task.member_nid].sender if task.member_nid in rows else ""
        if sender in context.ignored or invites_blocked(context.db, context.user_id):
            return None
    events = stripped_state(context.db, task.room_nid, context.user_id, task.member_nid)
    return {f"{task.section.value}_state": {"events": events}}


def invites_blocked(db: Reader, user_id: str) -> bool:
    """Does the user refuse all invites (client-server-api, "Invite permission")?"""
    config = account_data.get(db, user_id, "m.invite_permission_config")
    return config is not None and config.get("default_action") == "block"


def stripped_state(db: Reader, room_nid: int, user_id: str, member_nid: int) -> list[JsonObject]:
    """What came with an out-of-band invite or knock, or else the same of the room's current state; and the
    user's own membership event."""
    text = sync_rooms.stripped_state(db, room_nid, user_id)
    events = (
        _current(db, room_nid, member_nid) if text is None else _from_elsewhere(json.loads(text), user_id)
    )
    own = timeline.bodies(db, [member_nid])
    return events + [stripped(pdu) for _, pdu in own.values()]


def _current(db: Reader, room_nid: int, member_nid: int) -> list[JsonObject]:
    group = timeline.state_at_pos(db, room_nid, NEWEST)
    if group is None:
        return []
    keys = {key for type in STRIPPED_TYPES if (key := ids.key_nid(db, type, "")) is not None}
    inviter = timeline.rows_of(db, [member_nid]).get(member_nid)
    if inviter is not None:
        keys.update(timeline.member_keys(db, [inviter.sender]).values())
    nids = set(state.lookup(db, group, keys).values()) - {member_nid}
    return [stripped(pdu) for _, pdu in timeline.bodies(db, nids).values()]


def _from_elsewhere(events: Any, user_id: str) -> list[JsonObject]:
    """Stripped state as another server gave it, cut down to what the format has. The user's own membership is
    left out: that event we have ourselves."""
    if not isinstance(events, list):
        return []
    return [
        stripped(event)
        for event in events[:MAX_STRIPPED]
        if isinstance(event, dict)
        and all(isinstance(event.get(name), str) for name in ("type", "state_key", "sender"))
        and isinstance(event.get("content"), dict)
        and (event["type"], event["state_key"]) != ("m.room.member", user_id)
    ]
