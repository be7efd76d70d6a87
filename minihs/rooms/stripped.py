# SPDX-License-Identifier: Apache-2.0
"""Stripped state: what somebody who is invited or knocks is told of a room (spec: client-server-api,
"Stripped state").
"""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head

SHOWN_TYPES = (
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
)
MAX_STRIPPED_EVENTS = 50
MAX_STRIPPED_BYTES = 128 * 1024


def of_room(graph: Graph, head: Head, also: list[Event]) -> list[Event]:
    """The events that an invite to, or the answer to a knock on, this room shows: whole, so that the other
    server can check them. The create event is always there.
    """
    state = head.state(graph)
    shown = [event for type in SHOWN_TYPES if (event := state.get((type, ""))) is not None]
    return shown + also


def stripped_state(value: object) -> list[JsonObject]:
    """What another server sent as stripped state, or as full events, cut down to well-formed stripped
    events.
    """
    kept: list[JsonObject] = []
    size = 0
    for item in value if isinstance(value, list) else []:
        if not isinstance(item, dict) or not isinstance(item.get("content"), dict):
            continue
        if not all(isinstance(item.get(key), str) for key in ("type", "sender", "state_key")):
            continue
        size += len(str(item["content"]))
        if len(kept) >= MAX_STRIPPED_EVENTS or size > MAX_STRIPPED_BYTES:
            break
        kept.append({key: item[key] for key in ("type", "sender", "state_key", "content")})
    return kept
