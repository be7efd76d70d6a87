# SPDX-License-Identifier: Apache-2.0
"""POST /rooms/{roomId}/upgrade: a room goes on in a new one of another version (client-server-api, "Room
Upgrades").

1. Who asks must be allowed to send m.room.tombstone.
2. The new room is made, all in one commit: its create event names the predecessor; the state that makes the
   room what it is is copied, bans included; the power levels come last, so that an upgrader of little power
   can still write the rest.
3. Local aliases, and the listing in the directory, move.
4. The tombstone is sent to the old room. Only from here on is the upgrade to be seen.
5. The old room's power levels are raised and its canonical alias taken off, as far as the upgrader may.

Then, and for others when they join the new room, a user's own settings follow: tags, push rules, m.direct.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import structlog

from minihs.matrix import canonical
from minihs.matrix.auth_rules import PowerLevels
from minihs.matrix.auth_rules.levels import creators_of, parse_level
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param, missing_param
from minihs.matrix.event import Event
from minihs.matrix.ids import is_user_id
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.rooms.creation import NewEvent, Plan
from minihs.rooms.following import Following
from minihs.rooms.head import Head
from minihs.rooms.membership import Memberships, ProfileOf
from minihs.rooms.parts import Parts
from minihs.rooms.sending import Sending
from minihs.store import aliases, memberships, rooms
from minihs.store.database import Tx

log = structlog.get_logger()

COPIED = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
)
"""With an empty state key. Power levels are copied too, but changed where the versions differ."""

MAX_BANS = 1000
MAX_CHILDREN = 1000
"""Rooms of a space that are copied."""

MAX_CREATORS = 100

RESTRICTED_LEVEL = 50

_SCALARS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")


class Upgrades:
    def __init__(
        self,
        parts: Parts,
        members: Memberships,
        sending: Sending,
        following: Following,
        profile_of: ProfileOf,
    ) -> None:
        self._parts = parts
        self._members = members
        self._sending = sending
        self._following = following
        self._profile_of = profile_of

    async def upgrade(self, user_id: str, room_id: str, request: JsonObject) -> str:
        """Returns the id of the new room."""
        version = _new_version(request)
        creators = _additional_creators(request, version) - {user_id}
        self._members.head_of_joined(user_id, room_id)
        await self._parts.whole.wait(room_id)  # whoever is banned is to be banned in the new room
        head = self._members.head_of_joined(user_id, room_id)
        levels = PowerLevels.from_state(head.state(self._parts.graph))
        if levels.user(user_id) < levels.event_level("m.room.tombstone", True):
            raise forbidden("You may not upgrade this room.")
        moved = aliases.of_room(self._parts.db.read, room_id)
        plan = self._plan(head, version, user_id, creators, moved)
        new_id = await self._sending.create(user_id, plan, self._profile_of(user_id))
        await self._parts.db.write(lambda tx: _move_names(tx, room_id, new_id))
        await self._sending.send(
            user_id,
            room_id,
            "m.room.tombstone",
            {"body": "This room has been replaced.", "replacement_room": new_id},
            state_key="",
        )
        await self._close(user_id, head, moved)
        await self._following.follow(user_id, new_id)
        return new_id

    # -- the new room ------------------------------------------------------------------------------

    def _plan(
        self, head: Head, version: RoomVersion, user_id: str, creators: set[str], moved: Collection[str]
    ) -> Plan:
        create = head.create_event(self._parts.graph)
        old_create: JsonObject = {} if create is None else create.content
        content: JsonObject = {"room_version": version.version, "predecessor": {"room_id": head.room_id}}
        if not version.room_id_is_create_hash:
            content["predecessor"]["event_id"] = head.newest(1)[0].event_id
        for name, kind in (("type", str), ("m.federate", bool)):
            if isinstance(old_create.get(name), kind):
                content[name] = old_create[name]
        if version.creator_in_content:
            content["creator"] = user_id
        if creators:
            content["additional_creators"] = sorted(creators)
        plan = Plan(version, content)
        wanted = [(type, "") for type in COPIED]
        if old_create.get("type") == "m.space":
            keys = self._parts.graph.full(head.current)
            wanted += [key for key in keys if key[0] == "m.space.child"][:MAX_CHILDREN]
        for type, state_key in wanted:
            event = self._event(head, type, state_key)
            if event is not None and _fits_version(event.content, version):
                plan.events.append(NewEvent(type, _adapted(event, version), state_key))
        alias = _alias_content(self._event(head, "m.room.canonical_alias"), moved, keep=True)
        if alias:
            plan.events.append(NewEvent("m.room.canonical_alias", alias))
        plan.events.extend(self._bans(head, version))
        levels = self._event(head, "m.room.power_levels")
        plan.events.append(
            NewEvent("m.room.power_levels", _levels(levels, create, version, user_id, creators))
        )
        return plan

    def _bans(self, head: Head, version: RoomVersion) -> list[NewEvent]:
        """Who was banned stays banned; the reason comes along, their profile does not."""
        bans = []
        for banned in memberships.banned(self._parts.db.read, head.room_nid, MAX_BANS):
            event = self._event(head, "m.room.member", banned)
            if event is None or event.membership != "ban":
                continue
            content: JsonObject = {"membership": "ban"}
            if isinstance(event.content.get("reason"), str):
                content["reason"] = event.content["reason"]
            bans.append(NewEvent("m.room.member", content, banned))
        return bans

    def _event(self, head: Head, type: str, state_key: str = "") -> Event | None:
        event_id = self._parts.graph.lookup(head.current, (type, state_key))
        return None if event_id is None else self._parts.graph.event(event_id)

    # -- the old room ------------------------------------------------------------------------------

    async def _close(self, user_id: str, head: Head, moved: Collection[str]) -> None:
        """Let nobody go on in the old room. Who may do so much only does so much."""
        alias = self._event(head, "m.room.canonical_alias")
        if alias is not None and moved:
            content = _alias_content(alias, moved, keep=False)
            await self._try(user_id, head.room_id, "m.room.canonical_alias", content)
        levels = self._event(head, "m.room.power_levels")
        if levels is not None:
            await self._try(user_id, head.room_id, "m.room.power_levels", _raised(levels, head.version))

    async def _try(self, user_id: str, room_id: str, type: str, content: JsonObject) -> None:
        try:
            await self._sending.send(user_id, room_id, type, content, state_key="")
        except MatrixError as error:
            log.info("an upgraded room stays as it was", room=room_id, type=type, reason=error.message)


def _new_version(request: JsonObject) -> RoomVersion:
    name = request.get("new_version")
    if name is None:
        raise missing_param("new_version is missing.")
    if not isinstance(name, str):
        raise bad_json("new_version must be a string.")
    version = ROOM_VERSIONS.get(name)
    if version is None:
        raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", "This server does not support that version.")
    return version


def _additional_creators(request: JsonObject, version: RoomVersion) -> set[str]:
    value = request.get("additional_creators", [])
    if not isinstance(value, list) or len(value) > MAX_CREATORS:
        raise bad_json(f"additional_creators must be a list of at most {MAX_CREATORS} user ids.")
    if not all(is_user_id(user) for user in value):
        raise invalid_param("additional_creators holds what is no user id.")
    return set(value) if version.privileged_creators else set()


def _fits_version(content: JsonObject, version: RoomVersion) -> bool:
    """Old rooms hold numbers that can't be in events of later ones."""
    if not version.strict_json:
        return True
    try:
        canonical.check_strict(content)
    except canonical.BadJson:
        return False
    return True


def _adapted(event: Event, version: RoomVersion) -> JsonObject:
    """A join rule that the version does not know would let nobody in, and mislead clients."""
    rule = event.content.get("join_rule")
    known = {"knock": version.knock, "restricted": version.restricted_join}
    known["knock_restricted"] = version.knock_restricted
    if event.type == "m.room.join_rules" and isinstance(rule, str) and not known.get(rule, True):
        return {"join_rule": "invite"}
    return event.content


def _alias_content(event: Event | None, moved: Collection[str], *, keep: bool) -> JsonObject:
    """Of a canonical alias event what is about the moved aliases (`keep`), or what is not."""
    old: JsonObject = {} if event is None else event.content
    content: JsonObject = {}
    if isinstance(old.get("alias"), str) and (old["alias"] in moved) is keep:
        content["alias"] = old["alias"]
    others = old.get("alt_aliases")
    if isinstance(others, list):
        stay = [each for each in others if isinstance(each, str) and (each in moved) is keep]
        if stay:
            content["alt_aliases"] = stay
    return content


def _levels(
    old: Event | None, create: Event | None, version: RoomVersion, user_id: str, creators: Collection[str]
) -> JsonObject:
    """The power levels of the new room: those of the old one, as the new version can have them."""
    content = {} if old is None else whole_numbers(old.content, old.version)
    users: dict[str, Any] = dict(content.get("users", {}))
    if create is not None and (old is None or create.version.privileged_creators):
        # Their power was nowhere written down.
        users.update(dict.fromkeys(creators_of(create), 100))
    if old is None:
        users[user_id] = max(users.get(user_id, 0), 100)
    if version.privileged_creators:
        for creator in {user_id, *creators}:
            users.pop(creator, None)
    return {**content, "users": users}


def whole_numbers(content: JsonObject, version: RoomVersion) -> JsonObject:
    """Power levels with integers where levels are; what is none is left out. Other fields stay."""
    result: JsonObject = {}
    for name, value in content.items():
        if name in _SCALARS:
            level = _level(value, version)
            if level is not None:
                result[name] = level
        elif name in ("users", "events", "notifications"):
            entries = value.items() if isinstance(value, dict) else ()
            result[name] = {
                key: level
                for key, each in entries
                if (level := _level(each, version)) is not None and (name != "users" or is_user_id(key))
            }
        else:
            result[name] = value
    return result


def _level(value: object, version: RoomVersion) -> int | None:
    level = parse_level(value, version)
    return None if level is None or abs(level) > canonical.MAX_INT else level


def _raised(levels: Event, version: RoomVersion) -> JsonObject:
    """Power levels by which ordinary members neither send nor invite any more."""
    content = levels.content
    users_default = parse_level(content.get("users_default"), version) or 0
    closed = max(RESTRICTED_LEVEL, users_default + 1)
    raised = {
        name: max(parse_level(content.get(name), version) or 0, closed)
        for name in ("events_default", "invite")
    }
    return {**content, **raised}


def _move_names(tx: Tx, old_id: str, new_id: str) -> None:
    """Aliases and the listing in our directory."""
    aliases.move(tx, old_id, new_id)
    old, new = rooms.get(tx, old_id), rooms.get(tx, new_id)
    if old is not None and new is not None and old.published:
        rooms.set_published(tx, new.room_nid, True)
        rooms.set_published(tx, old.room_nid, False)
