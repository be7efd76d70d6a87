# SPDX-License-Identifier: Apache-2.0
"""Rooms from outside: a summary of each, and who may have it (client-server-api, "Spaces", "Room previews").

A room is shown to whoever is in it, is invited, could join or knock, or could read it without joining.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.matrix.ids import is_room_id
from minihs.store import memberships, room_overview, rooms, timeline
from minihs.store.reader import Reader
from minihs.store.rooms import Room

_TEXTS = {
    # field of the summary → where it is: (state event type, property of its content)
    "name": ("m.room.name", "name"),
    "topic": ("m.room.topic", "topic"),
    "canonical_alias": ("m.room.canonical_alias", "alias"),
    "avatar_url": ("m.room.avatar", "url"),
    "join_rule": ("m.room.join_rules", "join_rule"),
    "room_type": ("m.room.create", "type"),
    "encryption": ("m.room.encryption", "algorithm"),
}
_OTHERS = ("m.room.history_visibility", "m.room.guest_access")
_TYPES = tuple({type for type, _ in _TEXTS.values()}) + _OTHERS
_OPEN_RULES = ("public", "knock", "knock_restricted")
MAX_CHILDREN = 1000


@dataclass(frozen=True, slots=True)
class Overview:
    room: Room
    summary: JsonObject
    """In the form that both APIs use."""
    allowed_room_ids: tuple[str, ...]
    """Rooms whose members may join, of a restricted room."""

    @property
    def join_rule(self) -> str:
        rule: str = self.summary.get("join_rule", "invite")
        return rule

    @property
    def is_space(self) -> bool:
        return self.summary.get("room_type") == "m.space"


def overview(db: Reader, room_id: str) -> Overview | None:
    """None for a room that we are not in."""
    room = rooms.get(db, room_id)
    if room is None or not room.resident:
        return None
    nids = room_overview.overview_nids(db, room.room_nid, _TYPES)
    bodies = timeline.bodies(db, set(nids.values()))
    contents: dict[str, Any] = {
        type: bodies[nid][1].get("content", {}) for type, nid in nids.items() if nid in bodies
    }
    summary: JsonObject = {
        "room_id": room_id,
        "num_joined_members": room_overview.joined_count(db, room.room_nid),
        "world_readable": _of(contents, _OTHERS[0]).get("history_visibility") == "world_readable",
        "guest_can_join": _of(contents, _OTHERS[1]).get("guest_access") == "can_join",
        "room_version": room.version,
    }
    for name, (type, field) in _TEXTS.items():
        value = _of(contents, type).get(field)
        if isinstance(value, str) and value:
            summary[name] = value
    allowed = _allowed_rooms(_of(contents, "m.room.join_rules"))
    if summary.get("join_rule") in ("restricted", "knock_restricted"):
        summary["allowed_room_ids"] = list(allowed)
    return Overview(room, summary, allowed)


def children_state(db: Reader, found: Overview) -> list[JsonObject]:
    """The m.space.child events of a space, stripped, in the order in which they are shown. None for other
    rooms.
    """
    if not found.is_space:
        return []
    nids = room_overview.children_nids(db, found.room.room_nid, MAX_CHILDREN)
    children: list[JsonObject] = []
    for _, pdu in timeline.bodies(db, set(nids)).values():
        content = pdu.get("content")
        if isinstance(content, dict) and is_child(content) and is_room_id(pdu.get("state_key")):
            children.append(
                {
                    "type": "m.space.child",
                    "state_key": pdu["state_key"],
                    "sender": pdu["sender"],
                    "content": content,
                    "origin_server_ts": pdu["origin_server_ts"],
                }
            )
    return sorted(children, key=_order)


def is_child(content: JsonObject) -> bool:
    """A child without `via` was taken out of the space."""
    via = content.get("via")
    return isinstance(via, list) and any(isinstance(host, str) for host in via)


def _order(child: JsonObject) -> tuple[bool, str, int, str]:
    order = child["content"].get("order")
    valid = isinstance(order, str) and len(order) <= 50 and all(" " <= letter <= "~" for letter in order)
    ts = child["origin_server_ts"]
    return not valid, order if valid else "", ts if type(ts) is int else 0, child["state_key"]


def user_may_see(db: Reader, user_id: str, found: Overview) -> bool:
    held = memberships.get(db, found.room.room_nid, user_id)
    if held is not None and held.membership in ("join", "invite"):
        return True
    if held is not None and held.membership == "ban":
        return found.summary["world_readable"] is True
    if _is_open(found):
        return True
    return found.join_rule == "restricted" and any(
        _is_joined(db, user_id, room_id) for room_id in found.allowed_room_ids
    )


def host_may_see(db: Reader, host: str, found: Overview) -> bool:
    """Could a user of that server join, knock on or read the room?"""
    if _is_open(found) or room_overview.host_is_invited(db, found.room.room_nid, host):
        return True
    if found.join_rule != "restricted":
        return False
    for room_id in found.allowed_room_ids:
        room = rooms.get(db, room_id)
        if room is not None and room.resident and rooms.has_host(db, room.room_nid, host):
            return True
    return False


def user_may_see_remote(db: Reader, user_id: str, summary: JsonObject) -> bool:
    """The same for a summary that another server gave."""
    if summary.get("join_rule", "public") in _OPEN_RULES or summary.get("world_readable") is True:
        return True
    room_nid = rooms.room_nid(db, summary["room_id"])
    held = None if room_nid is None else memberships.get(db, room_nid, user_id)
    if held is not None and held.membership in ("join", "invite"):
        return True
    allowed = summary.get("allowed_room_ids")
    return isinstance(allowed, list) and any(
        isinstance(room_id, str) and _is_joined(db, user_id, room_id) for room_id in allowed[:50]
    )


def _is_open(found: Overview) -> bool:
    return found.join_rule in _OPEN_RULES or found.summary["world_readable"] is True


def _is_joined(db: Reader, user_id: str, room_id: str) -> bool:
    room_nid = rooms.room_nid(db, room_id)
    held = None if room_nid is None else memberships.get(db, room_nid, user_id)
    return held is not None and held.membership == "join"


def _of(contents: dict[str, Any], type: str) -> JsonObject:
    content = contents.get(type)
    return content if isinstance(content, dict) else {}


def _allowed_rooms(content: JsonObject) -> tuple[str, ...]:
    allow = content.get("allow")
    return tuple(
        str(entry["room_id"])
        for entry in (allow if isinstance(allow, list) else [])
        if isinstance(entry, dict)
        and entry.get("type") == "m.room_membership"
        and is_room_id(entry.get("room_id"))
    )
