# SPDX-License-Identifier: Apache-2.0
"""Filters of clients, checked and made quick to apply (client-server-api, "Filtering")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, invalid_param

DEFAULT_TIMELINE_LIMIT = 10
MAX_TIMELINE_LIMIT = 200
MAX_FILTER_TEXT = 64 * 1024


class _Names:
    """A list of names, of which types may have `*` in them."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, names: list[str], *, wildcards: bool) -> None:
        self._patterns = [name for name in names if wildcards and "*" in name]
        self._exact = frozenset(names).difference(self._patterns)

    def __contains__(self, name: str) -> bool:
        if name in self._exact:
            return True
        return any(_star_matches(pattern, name) for pattern in self._patterns)


def _star_matches(pattern: str, text: str) -> bool:
    """`*` stands for any text, everything else for itself (push globs have `?` too, filters don't). Linear
    time."""
    first, *middle, last = pattern.split("*")
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


@dataclass(frozen=True, slots=True)
class EventFilter:
    """One EventFilter or RoomEventFilter. None: that field does not filter."""

    limit: int | None = None
    types: _Names | None = None
    not_types: _Names | None = None
    senders: _Names | None = None
    not_senders: _Names | None = None
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False

    @property
    def passes_all(self) -> bool:
        """No event is filtered out for its own sake (its room may be)."""
        return (
            self.types is None
            and self.not_types is None
            and self.senders is None
            and self.not_senders is None
            and self.contains_url is None
        )

    def allows_room(self, room_id: str) -> bool:
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)

    def allows(self, type: str, sender: str | None = None) -> bool:
        """By type and sender. Events without a sender (account data, typing) pass any filter on senders."""
        if self.types is not None and type not in self.types:
            return False
        if self.not_types is not None and type in self.not_types:
            return False
        if sender is None:
            return True
        if self.senders is not None and sender not in self.senders:
            return False
        return self.not_senders is None or sender not in self.not_senders

    def allows_content(self, content: Mapping[str, Any]) -> bool:
        return self.contains_url is None or self.contains_url == isinstance(content.get("url"), str)


ALL = EventFilter()


@dataclass(frozen=True, slots=True)
class SyncFilter:
    """A whole Filter, as /sync uses it."""

    account_data: EventFilter = ALL
    presence: EventFilter = ALL
    timeline: EventFilter = ALL
    state: EventFilter = ALL
    ephemeral: EventFilter = ALL
    room_account_data: EventFilter = ALL
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    include_leave: bool = False
    event_fields: tuple[tuple[str, ...], ...] | None = None
    federation_format: bool = False

    @property
    def timeline_limit(self) -> int:
        limit = self.timeline.limit
        return DEFAULT_TIMELINE_LIMIT if limit is None else min(limit, MAX_TIMELINE_LIMIT)

    @property
    def lazy_load_members(self) -> bool:
        return self.state.lazy_load_members

    def allows_room(self, room_id: str) -> bool:
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


NO_FILTER = SyncFilter()


def parse_filter(value: object) -> SyncFilter:
    """A Filter object from a client; M_BAD_JSON where a field has the wrong type."""
    body = _object(value, "filter")
    room = _object(body.get("room", {}), "room")
    fields = body.get("event_fields")
    return SyncFilter(
        account_data=parse_event_filter(body.get("account_data", {}), "account_data"),
        presence=parse_event_filter(body.get("presence", {}), "presence"),
        timeline=parse_event_filter(room.get("timeline", {}), "room.timeline"),
        state=parse_event_filter(room.get("state", {}), "room.state"),
        ephemeral=parse_event_filter(room.get("ephemeral", {}), "room.ephemeral"),
        room_account_data=parse_event_filter(room.get("account_data", {}), "room.account_data"),
        rooms=_room_set(room, "rooms"),
        not_rooms=_room_set(room, "not_rooms") or frozenset(),
        include_leave=_bool(room, "include_leave") or False,
        event_fields=None
        if fields is None
        else tuple(_split_path(path) for path in _strings(body, "event_fields")),
        federation_format=_event_format(body) == "federation",
    )


def parse_event_filter(value: object, name: str = "filter") -> EventFilter:
    body = _object(value, name)
    limit = body.get("limit")
    if limit is not None and (type(limit) is not int or limit < 0):
        raise bad_json(f"{name}.limit must be a whole number that is not negative.")
    return EventFilter(
        limit=limit,
        types=_names(body, "types", wildcards=True),
        not_types=_names(body, "not_types", wildcards=True),
        senders=_names(body, "senders"),
        not_senders=_names(body, "not_senders"),
        rooms=_room_set(body, "rooms"),
        not_rooms=_room_set(body, "not_rooms") or frozenset(),
        contains_url=_bool(body, "contains_url"),
        lazy_load_members=_bool(body, "lazy_load_members") or False,
        include_redundant_members=_bool(body, "include_redundant_members") or False,
        unread_thread_notifications=_bool(body, "unread_thread_notifications") or False,
    )


def parse_inline(text: str) -> object:
    """The JSON of a filter given in the query string."""
    if len(text) > MAX_FILTER_TEXT:
        raise invalid_param("The filter is too long.")
    try:
        return canonical.loads(text.encode())
    except ValueError as error:
        raise invalid_param("The filter is not valid JSON.") from error


def prune(event: JsonObject, paths: tuple[tuple[str, ...], ...]) -> JsonObject:
    """Only the fields that `event_fields` names, and what identifies an event at all."""
    kept: JsonObject = {name: event[name] for name in _ALWAYS if name in event}
    for path in paths:
        source: Any = event
        for name in path:
            if not isinstance(source, dict) or name not in source:
                break
            source = source[name]
        else:
            _put(kept, path, source)
    return kept


_ALWAYS = ("event_id", "type", "sender", "state_key")
"""A server may include more than was asked for; without these no client knows what it has before it."""


def _put(target: JsonObject, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = target.get(name)
        inner = dict(inner) if isinstance(inner, dict) else {}
        target[name] = inner
        target = inner
    target[path[-1]] = value


def _split_path(path: str) -> tuple[str, ...]:
    """Dot-separated property path; `\\.` is a dot within a name (appendices, "Dot-separated property
    paths")."""
    names, current, escaped = [], "", False
    for letter in path:
        if escaped:
            current += letter if letter in ".\\" else "\\" + letter
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == ".":
            names.append(current)
            current = ""
        else:
            current += letter
    names.append(current + ("\\" if escaped else ""))
    return tuple(names)


def _object(value: object, name: str) -> JsonObject:
    if not isinstance(value, dict):
        raise bad_json(f"{name} must be an object.")
    return value


def _strings(body: JsonObject, name: str) -> list[str]:
    value = body[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad_json(f"{name} must be a list of strings.")
    return value


def _names(body: JsonObject, name: str, *, wildcards: bool = False) -> _Names | None:
    return None if body.get(name) is None else _Names(_strings(body, name), wildcards=wildcards)


def _room_set(body: JsonObject, name: str) -> frozenset[str] | None:
    return None if body.get(name) is None else frozenset(_strings(body, name))


def _bool(body: JsonObject, name: str) -> bool | None:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_json(f"{name} must be true or false.")
    return value


def _event_format(body: JsonObject) -> str:
    value = body.get("event_format", "client")
    if value not in ("client", "federation"):
        raise bad_json('event_format must be "client" or "federation".')
    return str(value)
