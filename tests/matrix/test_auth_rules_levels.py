# SPDX-License-Identifier: Apache-2.0
"""PowerLevels: who has what power."""

from __future__ import annotations

import time
from typing import Any

import pytest

from minihs.matrix.auth_rules import INFINITE, PowerLevels, creators_of, parse_level
from minihs.matrix.room_versions import ROOM_VERSIONS
from tests.matrix.auth_world import ADMIN, CREATOR, MOD, OTHER, USER, World

ALL = list(ROOM_VERSIONS)


def levels_of(w: World) -> PowerLevels:
    return PowerLevels.from_state(w.state)


@pytest.mark.parametrize("version", ALL)
def test_without_power_levels_the_creator_alone_has_power(version: str) -> None:
    w = World(version)
    del w.state["m.room.power_levels", ""]
    levels = levels_of(w)
    assert levels.user(CREATOR) == (INFINITE if version == "12" else 100)
    assert levels.user(ADMIN) == 0
    assert levels.event is None


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("given", [True, False])
def test_the_levels_that_hold_when_nothing_else_is_said(version: str, given: bool) -> None:
    w = World(version)
    w.levels = {}
    w.set_levels()
    if not given:
        del w.state["m.room.power_levels", ""]
    levels = levels_of(w)
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (50, 50, 50, 0)
    assert (levels.state_default, levels.events_default, levels.users_default) == (50, 0, 0)
    assert levels.event_level("m.room.name", True) == 50
    assert levels.event_level("m.room.message", False) == 0
    assert levels.notification("room") == 50
    assert levels.user(OTHER) == 0


@pytest.mark.parametrize("version", ALL)
def test_the_levels_that_are_said(version: str) -> None:
    w = World(version)
    w.set_levels(
        ban=1, kick=2, redact=3, invite=4, state_default=5, events_default=6, users_default=7,
        events={"m.room.name": 8, "m.room.message": -9}, notifications={"room": 10},
    )  # fmt: skip
    levels = levels_of(w)
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (1, 2, 3, 4)
    assert (levels.state_default, levels.events_default, levels.users_default) == (5, 6, 7)
    assert levels.event_level("m.room.name", True) == 8
    assert levels.event_level("m.room.name", False) == 8
    assert levels.event_level("m.room.message", False) == -9
    assert levels.event_level("m.room.topic", True) == 5
    assert levels.event_level("m.reaction", False) == 6
    assert levels.notification("room") == 10
    assert levels.notification("other") == 50
    assert (levels.user(MOD), levels.user(USER)) == (50, 7)


@pytest.mark.parametrize("version", ALL)
def test_a_listed_creator_has_what_is_listed_except_where_creators_are_all_powerful(version: str) -> None:
    w = World(version)
    w.set_levels(users={CREATOR: 1})
    assert levels_of(w).user(CREATOR) == (INFINITE if version == "12" else 1)
    w.set_levels(users={})
    assert levels_of(w).user(CREATOR) == (INFINITE if version == "12" else 0)


def test_infinite_power_is_above_any_integer() -> None:
    assert INFINITE > 10**400
    assert not INFINITE < INFINITE


@pytest.mark.parametrize("content", [None, [], "x", 1, {}, {"x": None}, {"m.room.name": []}])
@pytest.mark.parametrize("version", ALL)
def test_what_is_no_level_leaves_the_default(version: str, content: Any) -> None:
    w = World(version)
    w.set_levels(users=content, events=content, notifications=content, ban=content, state_default=content)
    levels = levels_of(w)
    assert levels.user(USER) == 0
    assert levels.event_level("m.room.name", True) == levels.state_default
    assert levels.notification("room") == 50
    assert levels.ban == (1 if content == 1 else 50)


@pytest.mark.parametrize(
    ("value", "before_6", "before_10", "since_10"),
    [
        (5, 5, 5, 5),
        (-5, -5, -5, -5),
        (10**30, 10**30, 10**30, 10**30),
        (True, None, None, None),
        (None, None, None, None),
        ([], None, None, None),
        ("5", 5, 5, None),
        ("-005", -5, -5, None),
        (" +5 ", 5, 5, None),
        ("0", 0, 0, None),
        ("-0", 0, 0, None),
        ("0000", 0, 0, None),
        ("0" * 60_000 + "7", 7, 7, None),
        ("9" * 4000, int("9" * 4000), int("9" * 4000), None),
        ("9" * 4001, None, None, None),
        ("", None, None, None),
        ("+", None, None, None),
        ("--5", None, None, None),
        ("5e3", None, None, None),
        ("1_000", None, None, None),
        ("٥", None, None, None),
        (5.0, 5, None, None),
        (5.99, 5, None, None),
        (-5.99, -5, None, None),
        (5.114698e4, 51146, None, None),
        (float("inf"), None, None, None),
        (float("nan"), None, None, None),
    ],
)
def test_what_counts_as_a_level(value: Any, before_6: Any, before_10: Any, since_10: Any) -> None:
    for name, version in ROOM_VERSIONS.items():
        expected = before_6 if int(name) < 6 else before_10 if int(name) < 10 else since_10
        level = parse_level(value, version)
        assert level == expected
        assert level is None or type(level) is int


@pytest.mark.parametrize(
    "text", ["0" * 65_000 + "x", "9" * 65_000, " " * 65_000 + "x", "0" * 30_000 + "9" * 30_000]
)
def test_a_long_string_is_refused_in_linear_time(text: str) -> None:
    start = time.process_time()
    assert parse_level(text, ROOM_VERSIONS["1"]) is None
    assert time.process_time() - start < 0.1


def test_the_creators_of_a_room() -> None:
    w = World("12")
    w.create.content["additional_creators"] = [OTHER, 5, None, [USER]]
    assert creators_of(w.create) == {CREATOR, OTHER}
    w.create.content["additional_creators"] = OTHER
    assert creators_of(w.create) == {CREATOR}
    w = World("11")
    w.create.content.update(additional_creators=[OTHER], creator=OTHER)
    assert creators_of(w.create) == {CREATOR}
    w = World("10")
    w.create.content["creator"] = OTHER
    assert creators_of(w.create) == {OTHER}
    w.create.content["creator"] = [OTHER]
    assert creators_of(w.create) == frozenset()
