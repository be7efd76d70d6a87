# SPDX-License-Identifier: Apache-2.0
"""The published room directory (client-server-api, "Published room directory"): listing it, and who may
change it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from minihs.matrix.auth_rules import PowerLevels
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, forbidden, invalid_param, not_found
from minihs.matrix.ids import is_room_id
from minihs.requester import Requester
from minihs.store import events, memberships, public_rooms, rooms, timeline
from minihs.store.database import Database, Tx
from minihs.store.public_rooms import PublicRoom
from minihs.store.reader import Reader

MAX_LIMIT = 500
DEFAULT_LIMIT = 100

_TOKEN = re.compile(r"p([0-9]{1,9})", re.ASCII)

# field of the answer → where it is: (state event type, property of its content)
_TEXTS = {
    "name": ("m.room.name", "name"),
    "topic": ("m.room.topic", "topic"),
    "canonical_alias": ("m.room.canonical_alias", "alias"),
    "avatar_url": ("m.room.avatar", "url"),
    "join_rule": ("m.room.join_rules", "join_rule"),
    "room_type": ("m.room.create", "type"),
}
_OTHERS = ("m.room.history_visibility", "m.room.guest_access")
_TYPES = tuple({type for type, _ in _TEXTS.values()}) + _OTHERS


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The parameters of one request, checked."""

    limit: int = DEFAULT_LIMIT
    since: str | None = None
    term: str = ""
    room_types: frozenset[str | None] | None = None
    network: str | None = None
    """An instance of a third-party network; none of our rooms is one's."""


def options_from(limit: object, since: object, wanted: object, network: object = None) -> ListOptions:
    """From the fields of a request; M_BAD_JSON, M_INVALID_PARAM."""
    if limit is not None and (type(limit) is not int or limit < 0):
        raise bad_json("limit must be a whole number.")
    if since is not None and not isinstance(since, str):
        raise bad_json("since must be a string.")
    if network is not None and not isinstance(network, str):
        raise bad_json("third_party_instance_id must be a string.")
    if wanted is None:
        wanted = {}
    if not isinstance(wanted, dict):
        raise bad_json("filter must be an object.")
    term, types = wanted.get("generic_search_term"), wanted.get("room_types")
    if term is not None and not isinstance(term, str):
        raise bad_json("generic_search_term must be a string.")
    if types is not None and not (
        isinstance(types, list) and all(each is None or isinstance(each, str) for each in types)
    ):
        raise bad_json("room_types must be a list of strings and nulls.")
    count = DEFAULT_LIMIT if type(limit) is not int or limit == 0 else min(limit, MAX_LIMIT)
    return ListOptions(
        count,
        since or None,
        (term or "").casefold(),
        None if types is None else frozenset(types),
        network or None,
    )


class PublicRooms:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(self, options: ListOptions) -> JsonObject:
        """A page of our directory, in the form of both APIs."""
        start = _offset(options.since)
        return await self._db.scan(lambda db: _page(db, options, start))

    def visibility(self, room_id: str) -> str:
        published = public_rooms.is_published(self._db.read, room_id)
        if published is None:
            raise not_found("This server knows of no such room.")
        return "public" if published else "private"

    async def set_visibility(self, requester: Requester, room_id: str, visibility: object) -> None:
        """For those who may set the room's canonical alias, and administrators of the server."""
        if visibility not in ("public", "private"):
            raise invalid_param('visibility must be "public" or "private".')
        room = rooms.get(self._db.read, room_id)
        if room is None or not room.resident:
            raise not_found("This server knows of no such room.")
        if not requester.is_admin:
            self._require_power(requester.user_id, room.room_nid)
        nid = room.room_nid

        def publish(tx: Tx) -> None:
            rooms.set_published(tx, nid, visibility == "public")

        await self._db.write(publish)

    def _require_power(self, user_id: str, room_nid: int) -> None:
        db = self._db.read
        member = memberships.get(db, room_nid, user_id)
        if member is None or member.membership != "join":
            raise forbidden("You are not in this room.")
        nids = public_rooms.state_events(db, [room_nid], ("m.room.power_levels", "m.room.create"))[room_nid]
        found = events.get_nids(db, nids.values())
        state = {(type, ""): found[nid].event for type, nid in nids.items() if nid in found}
        levels = PowerLevels.from_state(state)
        if levels.user(user_id) < levels.event_level("m.room.canonical_alias", is_state=True):
            raise forbidden("You may not change how this room is listed.")


def _page(db: Reader, options: ListOptions, start: int) -> JsonObject:
    published = public_rooms.published(db) if options.network is None else []
    entries = _entries(db, published)
    if options.term or options.room_types is not None:
        entries = [entry for entry in entries if _matches(entry, options)]
    chunk = entries[start : start + options.limit]
    answer: JsonObject = {"chunk": chunk, "total_room_count_estimate": len(entries)}
    if start + options.limit < len(entries):
        answer["next_batch"] = f"p{start + options.limit}"
    if start > 0:
        answer["prev_batch"] = f"p{max(0, start - options.limit)}"
    return answer


def _entries(db: Reader, published: list[PublicRoom]) -> list[JsonObject]:
    state = public_rooms.state_events(db, [room.room_nid for room in published], _TYPES)
    bodies = timeline.bodies(db, {nid for of_room in state.values() for nid in of_room.values()})
    entries = []
    for room in published:
        contents: dict[str, Any] = {
            type: bodies[nid][1]["content"] for type, nid in state[room.room_nid].items() if nid in bodies
        }
        entry: JsonObject = {"room_id": room.room_id, "num_joined_members": room.joined}
        for name, (type, field) in _TEXTS.items():
            value = contents.get(type, {}).get(field)
            if isinstance(value, str) and value:
                entry[name] = value
        visibility, guests = (contents.get(type, {}) for type in _OTHERS)
        entry["world_readable"] = visibility.get("history_visibility") == "world_readable"
        entry["guest_can_join"] = guests.get("guest_access") == "can_join"
        entries.append(entry)
    return entries


def _matches(entry: JsonObject, options: ListOptions) -> bool:
    if options.room_types is not None and entry.get("room_type") not in options.room_types:
        return False
    if not options.term:
        return True
    return any(
        options.term in entry.get(name, "").casefold()
        for name in ("name", "topic", "canonical_alias", "room_id")
    )


def _offset(since: str | None) -> int:
    if since is None:
        return 0
    match = _TOKEN.fullmatch(since)
    if match is None:
        raise invalid_param("The pagination token is malformed.")
    return int(match[1])


def remote_page(answer: JsonObject) -> JsonObject:
    """Another server's answer, cut down to what has the types that clients rely on."""
    chunk = answer.get("chunk")
    page: JsonObject = {"chunk": []}
    for entry in chunk[:MAX_LIMIT] if isinstance(chunk, list) else []:
        if not isinstance(entry, dict) or not is_room_id(entry.get("room_id")):
            continue
        joined = entry.get("num_joined_members")
        shown: JsonObject = {
            "room_id": entry["room_id"],
            "num_joined_members": joined if type(joined) is int and joined >= 0 else 0,
            "world_readable": entry.get("world_readable") is True,
            "guest_can_join": entry.get("guest_can_join") is True,
        }
        shown.update({name: entry[name] for name in _TEXTS if isinstance(entry.get(name), str)})
        page["chunk"].append(shown)
    for name in ("next_batch", "prev_batch"):
        if isinstance(answer.get(name), str):
            page[name] = answer[name]
    total = answer.get("total_room_count_estimate")
    if type(total) is int:
        page["total_room_count_estimate"] = total
    return page
