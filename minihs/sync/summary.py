# SPDX-License-Identifier: Apache-2.0
"""A room's summary: heroes and counts, from which clients make a name for rooms that have none
(client-server-api, "RoomSummary")."""

from __future__ import annotations

from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.store import ids, state, sync_rooms, timeline
from minihs.store.reader import Reader

HEROES = 5


def summary(db: Reader, room_nid: int, user_id: str, *, group: int | None) -> JsonObject:
    """Counts, and heroes where the room has neither a name nor a canonical alias."""
    result: JsonObject = {
        "m.joined_member_count": sync_rooms.joined_count(db, room_nid),
        "m.invited_member_count": sync_rooms.invited_count(db, room_nid),
    }
    if group is None or not _has_name(db, group):
        result["m.heroes"] = heroes(db, room_nid, user_id)
    return result


def heroes(db: Reader, room_nid: int, user_id: str) -> list[str]:
    """The first five others who are joined or invited; if there are none, who left or was banned."""

    def first(*memberships: str) -> list[str]:
        found: list[tuple[int, str]] = []
        for membership in memberships:
            found += sync_rooms.members_by_kind(db, room_nid, membership, besides=user_id, limit=HEROES)
        return [other for _, other in sorted(found)[:HEROES]]

    return first("join", "invite") or first("leave", "ban")


def _has_name(db: Reader, group: int) -> bool:
    keys = {
        key
        for key in (ids.key_nid(db, "m.room.name", ""), ids.key_nid(db, "m.room.canonical_alias", ""))
        if key is not None
    }
    nids = state.lookup(db, group, keys).values() if keys else ()
    for _, pdu in timeline.bodies(db, set(nids)).values():
        content: Any = pdu.get("content")
        value = (
            content.get("name" if pdu["type"] == "m.room.name" else "alias")
            if isinstance(content, dict)
            else None
        )
        if isinstance(value, str) and value:
            return True
    return False
