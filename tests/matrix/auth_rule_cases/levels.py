# SPDX-License-Identifier: Apache-2.0
"""Changes of power levels."""

from __future__ import annotations

from typing import Any

from tests.matrix.auth_rule_cases.registry import case, case_of
from tests.matrix.auth_world import ADMIN, CREATOR, MOD, USER, Judgement, World

# ---- 10 (v6 to v11: 9): power levels ----

for name in ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"):
    for wrong in ("50", 50.0, True, None, [], {}):
        case_of(
            "levels: scalar no integer",
            f"- {name} is {wrong!r}",
            lambda w, name=name, wrong=wrong: w.levels_event(ADMIN, {**w.levels, name: wrong}),
        )
for group in ("events", "notifications"):
    for wrong in (None, [], "x", 1, {"x": "50"}, {"x": 50.0}, {"x": True}, {"x": None}, {"x": []}):
        case_of(
            "levels: map no integers",
            f"- {group} is {wrong!r}",
            lambda w, group=group, wrong=wrong: w.levels_event(ADMIN, {**w.levels, group: wrong}),
        )
for wrong in (None, [], "x", 1, {"user": 1}, {"@user": 1}, {"": 1}, {USER: None}, {USER: True}, {USER: []},
              {USER: {}}, {USER: "x"}, {USER: ""}, {USER: "5.5"}, {USER: "0x5"}, {USER: "5_0"}, {USER: "+-5"},
              {USER: "٥"}, {USER: "9" * 5000}, {USER: "1 1"}):  # fmt: skip
    case_of(
        "levels: bad users",
        f"- users is {str(wrong)[:40]}",
        lambda w, wrong=wrong: w.levels_event(ADMIN, {"users": wrong}),
    )


@case("levels: bad users", "- a bad level even in the first power levels")
def _(w: World) -> Judgement:
    del w.state["m.room.power_levels", ""]
    return w.levels_event(CREATOR, {"users": {USER: None}})


case_of(
    "levels: names a creator",
    "- a level for the sender of the create event",
    lambda w: w.levels_event(CREATOR, {"users": {CREATOR: 100}}),
)


@case("levels: names a creator", "- a level for an additional creator")
def _(w: World) -> Judgement:
    w.create.content["additional_creators"] = [USER]
    return w.levels_event(CREATOR, {"users": {USER: 100}})


@case("levels: first", "+ whatever they are, by the creator")
def _(w: World) -> Judgement:
    del w.state["m.room.power_levels", ""]
    return w.levels_event(CREATOR, {"users": {ADMIN: 1000}, "ban": 1000, "events": {"x": 1000}})


@case("levels: first", "+ none at all")
def _(w: World) -> Judgement:
    del w.state["m.room.power_levels", ""]
    return w.levels_event(CREATOR, {})


def by_mod(w: World, before: dict[str, Any], after: dict[str, Any]) -> Judgement:
    """MOD, who has 50, changes power levels from the usual and `before` to the usual and `after`."""
    usual = {**w.levels, "state_default": 50}
    w.set_levels(**{**usual, **before})
    return w.levels_event(MOD, {**usual, **after})


for name in ("users_default", "events_default", "ban", "redact", "kick", "invite"):
    case_of(
        "levels: scalar was above",
        f"- {name} lowered",
        lambda w, name=name: by_mod(w, {name: 51}, {name: 50}),
    )
    case_of("levels: scalar was above", f"- {name} removed", lambda w, name=name: by_mod(w, {name: 51}, {}))
    case_of(
        "levels: scalar would be above",
        f"- {name} raised",
        lambda w, name=name: by_mod(w, {name: 50}, {name: 51}),
    )
    case_of(
        "levels: scalar would be above", f"- {name} added", lambda w, name=name: by_mod(w, {}, {name: 51})
    )
    case_of(
        "levels: otherwise",
        f"+ {name} changed within the sender's power",
        lambda w, name=name: by_mod(w, {name: 50}, {name: 49}),
    )
    case_of(
        "levels: otherwise",
        f"+ {name} above the sender's power, left as it is",
        lambda w, name=name: by_mod(w, {name: 51}, {name: 51}),
    )
case_of(
    "levels: scalar would be above", "- state_default raised", lambda w: by_mod(w, {}, {"state_default": 51})
)

for point, before, after in (
    ("levels: event was above", {"x": 51}, {"x": 50}),
    ("levels: event was above", {"x": 51}, {}),
    ("levels: event would be above", {"x": 50}, {"x": 51}),
    ("levels: event would be above", {}, {"x": 51}),
    ("levels: otherwise", {"x": 51}, {"x": 51}),
    ("levels: otherwise", {"x": 50}, {"x": -50}),
    ("levels: otherwise", {"x": 50}, {}),
):
    sign = "+" if point == "levels: otherwise" else "-"
    case_of(
        point,
        f"{sign} events from {before} to {after}",
        lambda w, before=before, after=after: by_mod(w, {"events": before}, {"events": after}),
    )


@case("levels: event was above", "- all events removed")
def _(w: World) -> Judgement:
    return by_mod(w, {"events": {"x": 51}}, {})


HIGH = "@high:a.test"
for point, before, after in (
    ("levels: user was as high", {HIGH: 50}, {HIGH: 49}),
    ("levels: user was as high", {HIGH: 50}, {}),
    ("levels: user was as high", {HIGH: 51}, {HIGH: 50}),
    ("levels: user would be above", {HIGH: 49}, {HIGH: 51}),
    ("levels: user would be above", {}, {HIGH: 51}),
    ("levels: user would be above", {}, {MOD: 51}),
    ("levels: otherwise", {HIGH: 49}, {HIGH: 50}),
    ("levels: otherwise", {HIGH: 49}, {}),
    ("levels: otherwise", {}, {HIGH: 50}),
    ("levels: otherwise", {}, {MOD: 0}),
    ("levels: otherwise", {HIGH: 51}, {HIGH: 51}),
):
    sign = "+" if point == "levels: otherwise" else "-"

    @case(point, f"{sign} users from {before} to {after}")
    def _(w: World, before: dict[str, int] = before, after: dict[str, int] = after) -> Judgement:
        users = w.levels["users"]
        return by_mod(w, {"users": {**users, **before}}, {"users": {**users, **after}})


@case("levels: otherwise", "+ the sender gives up their own place among the users")
def _(w: World) -> Judgement:
    users = {user: level for user, level in w.levels["users"].items() if user != MOD}
    return by_mod(w, {}, {"users": users})
