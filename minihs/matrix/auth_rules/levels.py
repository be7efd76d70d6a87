# SPDX-License-Identifier: Apache-2.0
"""Who has what power in a room (spec: client-server-api, m.room.power_levels; rooms/v12, "room creators").

`PowerLevels` reads one state. It is used by the auth rules, and by whoever else has to know: client routes,
the application of redactions, push rules.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, Protocol

from minihs.matrix.event import Event
from minihs.matrix.room_versions import RoomVersion

type Level = int | float
"""A power level: an integer of any size, or INFINITE. (Python compares the two exactly.)"""

INFINITE: Final = math.inf
"""The power of a room's creators from version 12 on."""


class StateView(Protocol):
    """A room state as the rules see it: asked for single keys, never walked. A dict will do."""

    def get(self, key: tuple[str, str], /) -> Event | None: ...


_INTEGER = re.compile(r"([+-]?)(?=[0-9])0*+([0-9]{0,4000}+)")
"""Digits beyond leading zeros are limited because Python refuses to convert far longer strings; such a one
counts as no level. Possessive, so that the time to refuse a string is linear in its length."""

_DEFAULTS: Final = {"ban": 50, "kick": 50, "redact": 50, "invite": 0, "state_default": 50}
"""Scalar levels that are not 0 unless said otherwise. `events_default` and `users_default` are 0."""


def parse_level(value: object, version: RoomVersion) -> int | None:
    """The level that a value stands for, or None if it is not a level in this room version.

    Until version 9 a string may hold an integer, until version 5 a float is cut off at the decimal point
    (rooms/fragments, "stringy" and "floaty" power levels). Booleans are never integers here.
    """
    if type(value) is int:
        return value
    if not version.integer_power_levels and type(value) is str:
        match = _INTEGER.fullmatch(value.strip())
        return int(match[1] + (match[2] or "0")) if match else None
    if not version.strict_json and type(value) is float and math.isfinite(value):
        return int(value)
    return None


def creators_of(create: Event) -> frozenset[str]:
    """The users who made the room: one, or from version 12 on perhaps more."""
    if create.version.creator_in_content:
        creator = create.content.get("creator")
        return frozenset([creator]) if isinstance(creator, str) else frozenset()
    creators = [create.sender]
    if create.version.privileged_creators:
        more = create.content.get("additional_creators")
        if isinstance(more, list):
            creators += [user for user in more if isinstance(user, str)]
    return frozenset(creators)


class PowerLevels:
    """The power levels in one room state. Nothing is parsed before it is asked for."""

    __slots__ = ("_all_powerful", "_content", "_creators", "_version", "event")

    def __init__(self, event: Event | None, create: Event | None) -> None:
        source = event or create
        self.event = event
        """The m.room.power_levels event, if there is one."""
        self._version = source.version if source is not None else None
        self._content: dict[str, Any] = event.content if event is not None else {}
        self._creators = creators_of(create) if create is not None else frozenset[str]()
        self._all_powerful = create is not None and create.version.privileged_creators

    @classmethod
    def from_state(cls, state: StateView) -> PowerLevels:
        return cls(state.get(("m.room.power_levels", "")), state.get(("m.room.create", "")))

    def user(self, user_id: str) -> Level:
        """What power the user has, in the room or not."""
        if user_id in self._creators:
            if self._all_powerful:
                return INFINITE
            if self.event is None:
                return 100
        level = self._entry("users", user_id)
        return level if level is not None else self.users_default

    def event_level(self, type: str, is_state: bool) -> int:
        """The power needed to send an event of this type. (Memberships have rules of their own.)"""
        level = self._entry("events", type)
        if level is not None:
            return level
        return self.state_default if is_state else self.events_default

    def notification(self, key: str) -> int:
        """The power needed to notify, for example, everybody by `@room` (key `room`)."""
        level = self._entry("notifications", key)
        return level if level is not None else 50

    @property
    def invite(self) -> int:
        return self._scalar("invite")

    @property
    def kick(self) -> int:
        return self._scalar("kick")

    @property
    def ban(self) -> int:
        return self._scalar("ban")

    @property
    def redact(self) -> int:
        return self._scalar("redact")

    @property
    def state_default(self) -> int:
        return self._scalar("state_default")

    @property
    def events_default(self) -> int:
        return self._scalar("events_default")

    @property
    def users_default(self) -> int:
        return self._scalar("users_default")

    def _scalar(self, name: str) -> int:
        level = self._parsed(self._content.get(name))
        return level if level is not None else _DEFAULTS.get(name, 0)

    def _entry(self, group: str, key: str) -> int | None:
        entries = self._content.get(group)
        return self._parsed(entries.get(key)) if isinstance(entries, dict) else None

    def _parsed(self, value: object) -> int | None:
        # What is not a level binds nobody: the default holds, as if nothing stood there. Such values exist
        # only in rooms up to version 9, where just `users` was checked in the first event.
        if value is None or self._version is None:
            return None
        return parse_level(value, self._version)
