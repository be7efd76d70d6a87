# SPDX-License-Identifier: Apache-2.0
"""A request of sliding sync, checked (MSC4186, "Request Body").

The unstable path, which clients use, and the MSC's text have come apart in some names; both are understood
wherever they don't contradict each other. Unknown fields are passed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, invalid_param
from minihs.matrix.ids import is_room_id
from minihs.sync.filters import MAX_TIMELINE_LIMIT
from minihs.sync.sliding import required_state
from minihs.sync.sliding.required_state import StateWish

MAX_LISTS = 100
MAX_SUBSCRIPTIONS = 100
"""Both as the MSC has them."""

MAX_RANGES = 100
"""Of one list; clients send one."""

MAX_NAMES = 200
"""In each array of a filter or of an extension."""

MAX_LIST_NAME = 64
MAX_CONN_ID = 255
"""Characters."""

MAX_TO_DEVICE = 100
"""Messages to the device in one answer."""

EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class RoomWish:
    """What is to be told of a room."""

    timeline_limit: int
    state: StateWish


@dataclass(frozen=True, slots=True)
class ListFilter:
    """None: that field does not filter."""

    is_dm: bool | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    spaces: frozenset[str] | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] = frozenset()
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] = frozenset()


NO_FILTER = ListFilter()


@dataclass(frozen=True, slots=True)
class ListWish:
    ranges: tuple[tuple[int, int], ...] | None
    """Of places in the list, from 0, the last one included; None: all."""
    filter: ListFilter
    rooms: RoomWish


@dataclass(frozen=True, slots=True)
class Scope:
    """Of which rooms an extension tells. None: of all lists, of all subscribed rooms."""

    lists: frozenset[str] | None = None
    rooms: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ToDeviceWish:
    since: int
    """The device has all messages up to this position."""
    limit: int


@dataclass(frozen=True, slots=True)
class Extensions:
    """None, False: not asked for."""

    to_device: ToDeviceWish | None = None
    e2ee: bool = False
    account_data: Scope | None = None
    receipts: Scope | None = None
    typing: Scope | None = None


@dataclass(frozen=True, slots=True)
class SlidingRequest:
    conn_id: str = ""
    pos: str = ""
    timeout_ms: int = 0
    lists: Mapping[str, ListWish] = field(default_factory=dict)
    subscriptions: Mapping[str, RoomWish] = field(default_factory=dict)
    extensions: Extensions = Extensions()
    digest: bytes = b""
    """Two requests with the same ask for the same rooms."""
    is_stable: bool = False
    """The answer is to have the names of the MSC's text."""


def parse(
    body: JsonObject, user_id: str, *, pos: str, timeout_ms: int, is_stable: bool = False
) -> SlidingRequest:
    """M_BAD_JSON: something has the wrong type. M_INVALID_PARAM: too much of something, or a wrong value."""
    conn_id = body.get("conn_id")
    if conn_id is not None and not isinstance(conn_id, str):
        raise bad_json("conn_id must be a string.")
    if conn_id is not None and len(conn_id) > MAX_CONN_ID:
        raise invalid_param(f"conn_id must not be longer than {MAX_CONN_ID} characters.")
    lists = _object(body, "lists")
    if len(lists) > MAX_LISTS:
        raise invalid_param(f"There must not be more than {MAX_LISTS} lists.")
    if any(len(name) > MAX_LIST_NAME for name in lists):
        raise invalid_param(f"The name of a list must not be longer than {MAX_LIST_NAME} characters.")
    subscriptions = _object(body, "room_subscriptions")
    if len(subscriptions) > MAX_SUBSCRIPTIONS:
        raise invalid_param(f"There must not be more than {MAX_SUBSCRIPTIONS} room subscriptions.")
    if not all(is_room_id(room_id) for room_id in subscriptions):
        raise invalid_param("A room subscription must be under a room id.")
    extensions = _object(body, "extensions")
    scopes = [extensions.get(name) for name in ("account_data", "receipts", "typing")]
    asked = json.dumps([lists, subscriptions, scopes], sort_keys=True)
    return SlidingRequest(
        conn_id=conn_id or "",
        pos=pos,
        timeout_ms=timeout_ms,
        lists={name: _list(value, user_id) for name, value in lists.items()},
        subscriptions={room_id: _room(value, user_id) for room_id, value in subscriptions.items()},
        extensions=_extensions(extensions),
        digest=hashlib.blake2b(asked.encode(errors="surrogatepass"), digest_size=16).digest(),
        is_stable=is_stable,
    )


def _list(value: Any, user_id: str) -> ListWish:
    if not isinstance(value, dict):
        raise bad_json("A list must be an object.")
    ranges = value.get("ranges")
    if "range" in value:
        ranges = [value["range"]]
    return ListWish(_ranges(ranges), _filter(_object(value, "filters")), _room(value, user_id))


def _room(value: Any, user_id: str) -> RoomWish:
    if not isinstance(value, dict):
        raise bad_json("A room subscription must be an object.")
    limit = value.get("timeline_limit", 0)
    if type(limit) is not int:
        raise bad_json("timeline_limit must be an integer.")
    if limit < 0:
        raise invalid_param("timeline_limit must not be negative.")
    state = required_state.parse(value.get("required_state"), user_id)
    return RoomWish(min(limit, MAX_TIMELINE_LIMIT), state)


def _ranges(value: Any) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise bad_json("ranges must be an array.")
    if len(value) > MAX_RANGES:
        raise invalid_param(f"There must not be more than {MAX_RANGES} ranges.")
    for each in value:
        if not isinstance(each, list) or len(each) != 2 or not all(type(end) is int for end in each):
            raise bad_json("A range must be an array of two integers.")
        if not 0 <= each[0] <= each[1]:
            raise invalid_param("A range must begin at 0 or later, and not end before it begins.")
    return tuple((first, last) for first, last in value)


def _filter(value: JsonObject) -> ListFilter:
    if not value:
        return NO_FILTER
    invited = value.get("is_invited", value.get("is_invite"))
    not_types = _names(value, "not_room_types", nullable=True)
    not_tags = _names(value, "not_tags")
    return ListFilter(
        is_dm=_flag(value.get("is_dm"), "is_dm"),
        is_encrypted=_flag(value.get("is_encrypted"), "is_encrypted"),
        is_invited=_flag(invited, "is_invite"),
        spaces=_strings(value, "spaces"),
        room_types=_names(value, "room_types", nullable=True),
        not_room_types=frozenset() if not_types is None else not_types,
        tags=_strings(value, "tags"),
        not_tags=frozenset() if not_tags is None else frozenset(tag for tag in not_tags if tag is not None),
    )


def _extensions(value: JsonObject) -> Extensions:
    to_device = _object(value, "to_device")
    return Extensions(
        to_device=_to_device(to_device) if _enabled(to_device) else None,
        e2ee=_enabled(_object(value, "e2ee")),
        account_data=_scope(_object(value, "account_data")),
        receipts=_scope(_object(value, "receipts")),
        typing=_scope(_object(value, "typing")),
    )


def _to_device(value: JsonObject) -> ToDeviceWish:
    since, limit = value.get("since"), value.get("limit")
    if since is not None and not isinstance(since, str):
        raise bad_json("since must be a string.")
    if since and not (since.isascii() and since.isdigit() and len(since) < 19):
        raise invalid_param("since is not a token of the to_device extension.")
    if limit is None:
        limit = MAX_TO_DEVICE
    if type(limit) is not int:
        raise bad_json("limit must be an integer.")
    if limit < 1:
        raise invalid_param("limit must be positive.")
    return ToDeviceWish(int(since or 0), min(limit, MAX_TO_DEVICE))


def _scope(value: JsonObject) -> Scope | None:
    if not _enabled(value):
        return None
    return Scope(_strings(value, "lists"), _strings(value, "rooms"))


def _enabled(value: JsonObject) -> bool:
    return _flag(value.get("enabled"), "enabled") is True


def _object(value: JsonObject, name: str) -> JsonObject:
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise bad_json(f"{name} must be an object.")
    return found


def _flag(value: Any, name: str) -> bool | None:
    if value is not None and type(value) is not bool:
        raise bad_json(f"{name} must be true or false.")
    return value


def _names(value: JsonObject, name: str, *, nullable: bool = False) -> frozenset[str | None] | None:
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, list):
        raise bad_json(f"{name} must be an array.")
    if len(found) > MAX_NAMES:
        raise invalid_param(f"{name} must not have more than {MAX_NAMES} elements.")
    if not all(isinstance(each, str) or (nullable and each is None) for each in found):
        raise bad_json(f"{name} must be an array of strings.")
    return frozenset(found)


def _strings(value: JsonObject, name: str) -> frozenset[str] | None:
    found = _names(value, name)
    return None if found is None else frozenset(each for each in found if each is not None)
