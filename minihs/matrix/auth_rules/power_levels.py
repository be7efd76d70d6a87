# SPDX-License-Identifier: Apache-2.0
"""The rule for m.room.power_levels: 10 in v1–v5 and v12, 9 in v6–v11.

Nobody can give, take or touch more power than they have. Where a comment gives one number it is that of
versions 10 and 11; before, points 1 and 2 did not exist (and so 3 was 1, …), in version 12 the former 4 …
are 5 ….
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from minihs.matrix.auth_rules.errors import AuthError
from minihs.matrix.auth_rules.levels import Level, PowerLevels, StateView, creators_of, parse_level
from minihs.matrix.auth_rules.numbering import numbering_of
from minihs.matrix.event import Event
from minihs.matrix.ids import is_user_id
from minihs.matrix.room_versions import RoomVersion

_SCALARS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")


def allow_power_levels(event: Event, state: StateView, create: Event) -> str:
    """The number of the point that allows the event; AuthError if none does."""
    numbers = numbering_of(event.version)
    rule = str(numbers.power_levels)
    new = event.content
    # 9.1 and 9.2
    if event.version.integer_power_levels:
        _check_integers(new, f"{rule}.{numbers.levels_scalars}", f"{rule}.{numbers.levels_maps}")
    # 9.3
    _check_users(new, event.version, f"{rule}.{numbers.levels_users}")
    # v12: 10.4
    if event.version.privileged_creators and not creators_of(create).isdisjoint(_entries(new, "users")):
        raise AuthError(f"{rule}.{numbers.levels_creators}", "a creator's power is not to be set")
    # 9.4
    levels = PowerLevels.from_state(state)
    if levels.event is None:
        return f"{rule}.{numbers.levels_first}"
    _check_changes(event, levels.event.content, levels.user(event.sender))
    # 9.10 (v1–v9: .8; v12: 10.11)
    return numbers.level_change(6)


def _check_integers(content: dict[str, Any], scalars_rule: str, groups_rule: str) -> None:
    if any(name in content and type(content[name]) is not int for name in _SCALARS):
        raise AuthError(scalars_rule, "a level is not an integer")
    for group in ("events", "notifications"):
        entries = content.get(group, {})
        if not isinstance(entries, dict) or any(type(level) is not int for level in entries.values()):
            raise AuthError(groups_rule, f"{group} is not an object with integers for values")


def _check_users(content: dict[str, Any], version: RoomVersion, rule: str) -> None:
    users = content.get("users", {})
    if (
        not isinstance(users, dict)
        or not all(is_user_id(user) for user in users)
        or any(parse_level(level, version) is None for level in users.values())
    ):
        raise AuthError(rule, "users is not an object with user ids for keys and levels for values")
    if not version.strict_json and _has_endless_number(content):
        raise AuthError(rule, "a level is beyond all numbers")


def _has_endless_number(content: dict[str, Any]) -> bool:
    """Whether a level is a float that no double can hold; such an event is refused whole (v1–v5)."""
    values = [content.get(name) for name in _SCALARS]
    for group in ("events", "notifications"):
        values += _entries(content, group).values()
    return any(type(value) is float and not math.isfinite(value) for value in values)


def _check_changes(event: Event, old: dict[str, Any], power: Level) -> None:
    """The five comparisons of what was with what shall be."""
    numbers = numbering_of(event.version)
    new = event.content
    version = event.version

    # 9.5
    rule = numbers.level_change(1)
    before = {name: old[name] for name in _SCALARS if name in old}
    after = {name: new[name] for name in _SCALARS if name in new}
    for name, was, shall in _altered(before, after, version, rule):
        if was is not None and was > power:
            raise AuthError(f"{rule}.1", f"{name} was above the sender's power")
        if shall is not None and shall > power:
            raise AuthError(f"{rule}.2", f"{name} would be above the sender's power")

    # 9.6 and 9.7
    for group in ("events", "notifications") if version.check_notification_levels else ("events",):
        removal, addition = numbers.level_change(2), numbers.level_change(3)
        for _, was, shall in _altered(_entries(old, group), _entries(new, group), version, addition):
            if was is not None and was > power:
                raise AuthError(f"{removal}.1", f"a level in {group} was above the sender's power")
            if shall is not None and shall > power:
                raise AuthError(f"{addition}.1", f"a level in {group} would be above the sender's power")

    # 9.8 and 9.9
    removal, addition = numbers.level_change(4), numbers.level_change(5)
    for user, was, shall in _altered(_entries(old, "users"), _entries(new, "users"), version, addition):
        if was is not None and was >= power and user != event.sender:
            raise AuthError(f"{removal}.1", "a user with no less power than the sender would be changed")
        if shall is not None and shall > power:
            raise AuthError(f"{addition}.1", "a user would have more power than the sender")


def _entries(content: dict[str, Any], group: str) -> dict[str, Any]:
    entries = content.get(group)
    return entries if isinstance(entries, dict) else {}


def _altered(
    old: Mapping[str, object], new: Mapping[str, object], version: RoomVersion, rule: str
) -> Iterator[tuple[str, int | None, int | None]]:
    """Each entry that was added, changed or removed, with its levels before and after; None where there is
    none.

    What is not a level (possible until version 9) bound nobody, so it counts as none before; to put one
    there now is an error of `rule`.
    """
    for name in old.keys() | new.keys():
        was = parse_level(old.get(name), version)
        shall = parse_level(new.get(name), version)
        if shall is None and name in new and not (name in old and was is None and new[name] == old[name]):
            raise AuthError(rule, "a level is not a number")
        if was != shall:
            yield name, was, shall
