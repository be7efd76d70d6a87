# SPDX-License-Identifier: Apache-2.0
"""A user's own settings follow them into the room that replaces another (client-server-api, "Room Upgrades"):
tags, push rules for the room, and who it is a direct chat with.

Only if the old room's tombstone names the new one: else anybody could claim to follow any room.
"""

from __future__ import annotations

from typing import Any

from minihs.matrix import push_rules as rules
from minihs.matrix.canonical import JsonObject, dumps
from minihs.matrix.errors import MatrixError
from minihs.matrix.ids import is_room_id
from minihs.rooms.parts import Parts
from minihs.store import account_data, events, memberships, push_rules, rooms
from minihs.store.database import Tx

TAGS = "m.tag"
DIRECT = "m.direct"


class Following:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def follow(self, user_id: str, room_id: str) -> None:
        """The user has joined this room; if it follows one that they were in, bring their settings along."""
        old_id = self._predecessor(user_id, room_id)
        if old_id is not None:
            await self._parts.db.write(lambda tx: _copy(tx, user_id, old_id, room_id))

    def _predecessor(self, user_id: str, room_id: str) -> str | None:
        create = self._content(room_id, "m.room.create")
        predecessor = create.get("predecessor")
        old_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        if not is_room_id(old_id) or old_id == room_id:
            return None
        old_nid = rooms.room_nid(self._parts.db.read, old_id)
        if old_nid is None or memberships.get(self._parts.db.read, old_nid, user_id) is None:
            return None
        tombstone = self._content(old_id, "m.room.tombstone")
        return old_id if tombstone.get("replacement_room") == room_id else None

    def _content(self, room_id: str, type: str) -> JsonObject:
        """Of the current state; {}: there is none."""
        db = self._parts.db.read
        room_nid = rooms.room_nid(db, room_id)
        event_id = None if room_nid is None else memberships.current_state_event(db, room_nid, type, "")
        stored = None if event_id is None else events.get(db, event_id)
        return {} if stored is None else stored.event.content


def _copy(tx: Tx, user_id: str, old_id: str, new_id: str) -> None:
    tags = account_data.get(tx, user_id, TAGS, old_id)
    if tags is not None and account_data.get(tx, user_id, TAGS, new_id) is None:
        account_data.put(tx, user_id, TAGS, dumps(tags).decode(), new_id)
    direct = account_data.get(tx, user_id, DIRECT) or {}
    after = {user: _with_room(listed, old_id, new_id) for user, listed in direct.items()}
    if after != direct:
        account_data.put(tx, user_id, DIRECT, dumps(after).decode())
    before = push_rules.changes(tx, user_id)[0]
    changed = _with_rules(before, old_id, new_id)
    if changed != before:
        push_rules.put(tx, user_id, changed)


def _with_room(listed: Any, old_id: str, new_id: str) -> Any:
    """A list of m.direct, with the new room beside the old one."""
    if not isinstance(listed, list) or old_id not in listed or new_id in listed:
        return listed
    return [*listed, new_id]


def _with_rules(changes: JsonObject, old_id: str, new_id: str) -> JsonObject:
    """The user's push rules, with those of the old room copied for the new one. Clients mute a room by an
    override rule that bears its id, and set it to mentions only by a room rule."""
    for kind in ("override", "room"):
        own = changes.get("rules", {}).get(kind, [])
        if any(rule["rule_id"] == new_id for rule in own):
            continue
        for rule in own:
            if rule["rule_id"] == old_id:
                copy = _about(rule, old_id, new_id)
                try:
                    changes = rules.put_rule(changes, kind, new_id, copy, before=None, after=None)
                except MatrixError:
                    continue  # they have as many rules as one may have
    return changes


def _about(rule: JsonObject, old_id: str, new_id: str) -> JsonObject:
    conditions = [
        {name: new_id if value == old_id else value for name, value in condition.items()}
        for condition in rule.get("conditions", [])
    ]
    return {"actions": rule["actions"], "conditions": conditions}
