# SPDX-License-Identifier: Apache-2.0
"""Which rooms pass the filter of a list (MSC4186, "SlidingRoomFilter").

Of a room that the user is not in, what came with the invite or the knock counts; what that does not say is
taken for unencrypted, and for a room of no type: an invite should be seen rather than not.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.store import account_data, room_activity, room_overview, rooms, state, timeline
from minihs.store.room_activity import RoomActivity
from minihs.sync.overview import MAX_CHILDREN, is_child
from minihs.sync.sliding.context import SlidingContext
from minihs.sync.sliding.request import NO_FILTER, ListFilter
from minihs.sync.stripped import stripped_state

CREATE = "m.room.create"
ENCRYPTION = "m.room.encryption"


class FilterFacts:
    """What filters ask of rooms, looked up once for an answer, and only if a filter asks."""

    def __init__(self, context: SlidingContext) -> None:
        self._context = context
        self._db = context.db
        self._elsewhere: dict[tuple[int, str], JsonObject | None] = {}
        self._spaces: dict[str, frozenset[str]] = {}

    def passes(self, wanted: ListFilter, room: RoomActivity) -> bool:
        if wanted is NO_FILTER:
            return True
        if wanted.is_dm is not None and wanted.is_dm != (room.room_id in self.direct_rooms):
            return False
        if wanted.is_invited is not None and wanted.is_invited != (room.membership == "invite"):
            return False
        if wanted.is_encrypted is not None and wanted.is_encrypted != self._is_encrypted(room):
            return False
        if wanted.tags is not None or wanted.not_tags:
            tags = self._tags.get(room.room_id, frozenset())
            if tags & wanted.not_tags or (wanted.tags is not None and not tags & wanted.tags):
                return False
        if wanted.room_types is not None or wanted.not_room_types:
            type = self._type(room)
            if type in wanted.not_room_types or (
                wanted.room_types is not None and type not in wanted.room_types
            ):
                return False
        return wanted.spaces is None or any(room.room_id in self._children(space) for space in wanted.spaces)

    @cached_property
    def direct_rooms(self) -> frozenset[str]:
        """Rooms that are for two, by the user's account data."""
        content = account_data.get(self._db, self._context.user_id, "m.direct") or {}
        return frozenset(
            room_id
            for room_ids in content.values()
            if isinstance(room_ids, list)
            for room_id in room_ids
            if isinstance(room_id, str)
        )

    @cached_property
    def _tags(self) -> dict[str, frozenset[str]]:
        found = {}
        for item in account_data.of_type(self._db, self._context.user_id, "m.tag"):
            tags = item.content.get("tags")
            found[item.room_id] = frozenset(tags if isinstance(tags, dict) else ())
        return found

    @cached_property
    def _encrypted(self) -> frozenset[int]:
        key = self._context.key(ENCRYPTION, "")
        if key is None:
            return frozenset()
        return frozenset(room_activity.with_state_key(self._db, self._context.user_id, key))

    @cached_property
    def _types(self) -> dict[int, str | None]:
        """Of joined rooms."""
        key = self._context.key(CREATE, "")
        if key is None:
            return {}
        nids = room_activity.with_state_key(self._db, self._context.user_id, key)
        types = self._context.facts.room_types(self._db, nids.values())
        return {room_nid: types[nid] for room_nid, nid in nids.items()}

    def _is_encrypted(self, room: RoomActivity) -> bool:
        if room.membership == "join":
            return room.room_nid in self._encrypted
        return self._content_elsewhere(room, ENCRYPTION) is not None

    def _type(self, room: RoomActivity) -> str | None:
        if room.membership == "join":
            return self._types.get(room.room_nid)
        type: Any = (self._content_elsewhere(room, CREATE) or {}).get("type")
        return type if isinstance(type, str) else None

    def _content_elsewhere(self, room: RoomActivity, type: str) -> JsonObject | None:
        """Of a room that the user is not joined to."""
        wanted = room.room_nid, type
        if wanted not in self._elsewhere:
            self._elsewhere[wanted] = self._look_elsewhere(room, type)
        return self._elsewhere[wanted]

    def _look_elsewhere(self, room: RoomActivity, type: str) -> JsonObject | None:
        db, context = self._db, self._context
        if room.membership in ("invite", "knock"):
            for event in stripped_state(db, room.room_nid, context.user_id, room.event_nid):
                if event["type"] == type and event["state_key"] == "":
                    return event["content"] if isinstance(event["content"], dict) else {}
            return None
        group, key = timeline.state_at_pos(db, room.room_nid, room.pos), context.key(type, "")
        nids = set() if group is None or key is None else set(state.lookup(db, group, (key,)).values())
        for _, pdu in timeline.bodies(db, nids).values():
            return pdu["content"] if isinstance(pdu["content"], dict) else {}
        return None

    def _children(self, space_id: str) -> frozenset[str]:
        """The rooms of a space that the user is joined to; none of any other."""
        if space_id not in self._spaces:
            self._spaces[space_id] = frozenset(self._look_into(space_id))
        return self._spaces[space_id]

    def _look_into(self, space_id: str) -> list[str]:
        room_nid = rooms.room_nid(self._db, space_id)
        if room_nid is None or room_nid not in self._joined:
            return []
        nids = room_overview.children_nids(self._db, room_nid, MAX_CHILDREN)
        bodies = [pdu for _, pdu in timeline.bodies(self._db, set(nids)).values()]
        return [
            pdu["state_key"]
            for pdu in bodies
            if isinstance(pdu.get("content"), dict) and is_child(pdu["content"])
        ]

    @cached_property
    def _joined(self) -> frozenset[int]:
        key = self._context.key(CREATE, "")
        return frozenset(
            () if key is None else room_activity.with_state_key(self._db, self._context.user_id, key)
        )
