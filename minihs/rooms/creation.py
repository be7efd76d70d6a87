# SPDX-License-Identifier: Apache-2.0
"""POST /createRoom: from the request to the first events of a room (spec: client-server-api, "Creation")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, invalid_param
from minihs.matrix.ids import is_user_id
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion

PRESETS: dict[str, tuple[str, str, str]] = {
    # preset: join_rule, history_visibility, guest_access
    "private_chat": ("invite", "shared", "can_join"),
    "trusted_private_chat": ("invite", "shared", "can_join"),
    "public_chat": ("public", "shared", "forbidden"),
}
MAX_INITIAL_STATE, MAX_INVITES = 500, 100


@dataclass(frozen=True, slots=True)
class NewEvent:
    type: str
    content: JsonObject
    state_key: str = ""


@dataclass(slots=True)
class Plan:
    """What createRoom will do, worked out before anything is made."""

    version: RoomVersion
    creation_content: JsonObject
    events: list[NewEvent] = field(default_factory=list)
    """After the create event and the creator's join, in order."""
    alias: str | None = None
    published: bool = False
    invites: list[str] = field(default_factory=list)
    is_direct: bool = False


def plan(request: JsonObject, *, creator: str, our_name: str, default_version: str) -> Plan:
    """Read and check the request. Raises MatrixError."""
    version = _version(request, default_version)
    visibility = _choice(request, "visibility", ("public", "private"), "private")
    preset = _choice(
        request, "preset", tuple(PRESETS), "public_chat" if visibility == "public" else "private_chat"
    )
    made = Plan(version, _creation_content(request, version, creator), published=visibility == "public")
    made.invites = _user_ids(request, "invite")
    made.is_direct = _boolean(request, "is_direct")
    if request.get("invite_3pid"):
        raise MatrixError(
            400, "M_THREEPID_NOT_FOUND", "This server has no identity server to invite by e-mail with."
        )
    alias_name = _text(request, "room_alias_name")
    if alias_name is not None:
        if not alias_name or ":" in alias_name or "#" in alias_name or "\0" in alias_name:
            raise invalid_param("room_alias_name is the part between '#' and ':'.")
        made.alias = f"#{alias_name}:{our_name}"
        if len(made.alias.encode()) > 255:
            raise invalid_param("room_alias_name is too long.")
    if preset == "trusted_private_chat" and version.privileged_creators:
        creators = [*made.creation_content.get("additional_creators", []), *made.invites]
        if creators:
            made.creation_content["additional_creators"] = list(dict.fromkeys(creators))
    trusted = made.invites if preset == "trusted_private_chat" and not version.privileged_creators else []
    made.events.append(NewEvent("m.room.power_levels", _power_levels(request, version, creator, trusted)))
    made.events.extend(_state(request, made, preset))
    return made


def _state(request: JsonObject, made: Plan, preset: str) -> list[NewEvent]:
    initial = _initial_state(request)
    given = {(event.type, event.state_key) for event in initial}
    join_rule, visibility, guests = PRESETS[preset]
    events: list[NewEvent] = []
    if made.alias is not None:
        events.append(NewEvent("m.room.canonical_alias", {"alias": made.alias}))
    for event in (
        NewEvent("m.room.join_rules", {"join_rule": join_rule}),
        NewEvent("m.room.history_visibility", {"history_visibility": visibility}),
        NewEvent("m.room.guest_access", {"guest_access": guests}),
    ):
        if (event.type, "") not in given:
            events.append(event)
    events.extend(initial)
    name, topic = _text(request, "name"), _text(request, "topic")
    if name is not None:
        events.append(NewEvent("m.room.name", {"name": name}))
    if topic is not None:
        events.append(NewEvent("m.room.topic", {"topic": topic, "m.topic": {"m.text": [{"body": topic}]}}))
    return events


def _version(request: JsonObject, default: str) -> RoomVersion:
    name = request.get("room_version", default)
    if not isinstance(name, str):
        raise bad_json("room_version must be a string.")
    version = ROOM_VERSIONS.get(name)
    if version is None:
        raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", f"Room version {name[:20]!r} is not supported.")
    return version


def _creation_content(request: JsonObject, version: RoomVersion, creator: str) -> JsonObject:
    content = request.get("creation_content", {})
    if not isinstance(content, dict):
        raise bad_json("creation_content must be an object.")
    content = {key: value for key, value in content.items() if key not in ("creator", "room_version")}
    content["room_version"] = version.version
    if version.creator_in_content:
        content["creator"] = creator
    extra = content.get("additional_creators")
    if extra is not None and not (isinstance(extra, list) and all(is_user_id(user) for user in extra)):
        raise invalid_param("additional_creators must be a list of user ids.")
    return content


def _power_levels(
    request: JsonObject, version: RoomVersion, creator: str, trusted: Sequence[str]
) -> JsonObject:
    override = request.get("power_level_content_override", {})
    if not isinstance(override, dict):
        raise bad_json("power_level_content_override must be an object.")
    users = {} if version.privileged_creators else dict.fromkeys((creator, *trusted), 100)
    events = {
        "m.room.name": 50,
        "m.room.power_levels": 100,
        "m.room.history_visibility": 100,
        "m.room.canonical_alias": 50,
        "m.room.avatar": 50,
        "m.room.tombstone": 150 if version.privileged_creators else 100,
        "m.room.server_acl": 100,
        "m.room.encryption": 100,
    }
    content: JsonObject = {
        "users": users,
        "users_default": 0,
        "events": events,
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0,
        "historical": 100,
    }
    content.update(override)
    return content


def _initial_state(request: JsonObject) -> list[NewEvent]:
    value = request.get("initial_state", [])
    if not isinstance(value, list) or len(value) > MAX_INITIAL_STATE:
        raise bad_json(f"initial_state must be a list of at most {MAX_INITIAL_STATE} events.")
    events: list[NewEvent] = []
    for item in value:
        if not isinstance(item, dict):
            raise bad_json("initial_state must hold objects.")
        type, state_key, content = item.get("type"), item.get("state_key", ""), item.get("content")
        if not isinstance(type, str) or not isinstance(state_key, str) or not isinstance(content, dict):
            raise bad_json(
                "Each of initial_state needs type, content and, if any, a state_key that is a string."
            )
        if type in ("m.room.create", "m.room.member"):
            raise invalid_param(f"initial_state may not hold {type}.")
        events.append(NewEvent(type, content, state_key))
    return events


def _user_ids(request: JsonObject, key: str) -> list[str]:
    value = request.get(key, [])
    if not isinstance(value, list) or len(value) > MAX_INVITES:
        raise bad_json(f"{key} must be a list of at most {MAX_INVITES} user ids.")
    for user in value:
        if not is_user_id(user):
            raise invalid_param(f"{key} holds what is no user id.")
    return list(dict.fromkeys(value))


def _text(request: JsonObject, key: str) -> str | None:
    value: Any = request.get(key)
    if value is not None and not isinstance(value, str):
        raise bad_json(f"{key} must be a string.")
    return value


def _boolean(request: JsonObject, key: str) -> bool:
    value = request.get(key, False)
    if not isinstance(value, bool):
        raise bad_json(f"{key} must be true or false.")
    return value


def _choice(request: JsonObject, key: str, choices: tuple[str, ...], default: str) -> str:
    value = request.get(key, default)
    if value not in choices or not isinstance(value, str):
        raise invalid_param(f"{key} must be one of {', '.join(choices)}.")
    return value
