# SPDX-License-Identifier: Apache-2.0
"""Rules 1 to 4: create events, auth events, federation, aliases."""

from __future__ import annotations

from typing import Any

from tests.matrix.auth_rule_cases.registry import case, case_of
from tests.matrix.auth_world import CREATOR, OTHER, STRANGER, USER, Judgement, World

# ---- 1: m.room.create ----


def create(w: World, sender: str = CREATOR, **changes: Any) -> Judgement:
    content = {**w.create.content, **changes}
    return w.judge(w.event("m.room.create", sender, content, "", prev_events=[]))


@case("create: has prev_events", "- a create event that follows another event")
def _(w: World) -> Judgement:
    return w.judge(w.event("m.room.create", CREATOR, w.create.content, "", prev_events=["$something"]))


@case("create: has a room id", "- a create event that names a room id")
def _(w: World) -> Judgement:
    event = w.event("m.room.create", CREATOR, w.create.content, "", prev_events=[])
    event.json["room_id"] = event.room_id
    return w.judge(event)


case_of(
    "create: room id of another server",
    "- a create event for a room id of another server",
    lambda w: create(w, "@mallory:b.test"),
)


@case("create: room id of another server", "- a create event for a room id without a server")
def _(w: World) -> Judgement:
    return w.judge(
        w.event("m.room.create", CREATOR, w.create.content, "", prev_events=[], room_id="!" + "A" * 43)
    )


for unknown in ("13", "org.example.custom", "", 1, 11.0, None, True, ["11"], {"11": 1}):
    case_of(
        "create: unknown room version",
        f"- the room version {unknown!r}",
        lambda w, unknown=unknown: create(w, room_version=unknown),
    )


@case("create: no creator", "- a create event without a creator")
def _(w: World) -> Judgement:
    content = {"room_version": w.version.version}
    return w.judge(w.event("m.room.create", CREATOR, content, "", prev_events=[]))


for wrong in (None, "@x:b.test", {}, [1], ["x"], [None], ["@x:b.test", "@x"], [["@x:b.test"]], True):
    case_of(
        "create: bad additional_creators",
        f"- the additional creators {wrong!r}",
        lambda w, wrong=wrong: create(w, additional_creators=wrong),
    )

case_of("create: otherwise", "+ a plain create event", create)
case_of(
    "create: otherwise",
    "+ a create event with more creators, which say something in version 12 only",
    lambda w: create(w, additional_creators=[OTHER, "@:b.test"]),
)


@case("create: otherwise", "+ a create event that names no version")
def _(w: World) -> Judgement:
    content = {name: value for name, value in w.create.content.items() if name != "room_version"}
    return w.judge(w.event("m.room.create", CREATOR, content, "", prev_events=[]))


@case("create: otherwise", "+ a creator of any kind, since only its presence is asked for")
def _(w: World) -> Judgement:
    return create(w, creator=None)


# ---- 2 (v12: 2 and 3): the auth events ----

case_of(
    "room id is no accepted create event",
    "- no event of that id is known",
    lambda w: w.with_auth_events(w.usual_auth_events(), create=None),
)
case_of(
    "room id is no accepted create event",
    "- the create event was rejected",
    lambda w: w.with_auth_events(w.usual_auth_events(), rejected={w.create.event_id}),
)
case_of(
    "room id is no accepted create event",
    "- the create event is another room's",
    lambda w: w.with_auth_events(
        w.usual_auth_events(),
        create=World(w.version.version).event("m.room.create", OTHER, {}, "", prev_events=[]),
    ),
)


@case("room id is no accepted create event", "- the room id names an event of another type")
def _(w: World) -> Judgement:
    name = w.event("m.room.name", CREATOR, {}, "")
    event = w.event("m.room.message", USER, {}, room_id="!" + name.event_id[1:])
    return w.judge_auth_events(event, [], create=name)


@case("room id is no accepted create event", "- the state's create event is another room's")
def _(w: World) -> Judgement:
    return w.judge(w.event("m.room.message", USER, room_id="!" + "B" * 43))


@case("room id is no accepted create event", "- the state has no create event")
def _(w: World) -> Judgement:
    del w.state["m.room.create", ""]
    return w.judge(w.event("m.room.message", USER))


@case("auth events: duplicate", "- two events under one key")
def _(w: World) -> Judgement:
    return w.with_auth_events([*w.usual_auth_events(), w.member(USER, "join")])


@case("auth events: duplicate", "- one event twice")
def _(w: World) -> Judgement:
    return w.with_auth_events([*w.usual_auth_events(), w.usual_auth_events()[0]])


@case("auth events: unwanted", "- an event that has no say in messages")
def _(w: World) -> Judgement:
    return w.with_auth_events([*w.usual_auth_events(), w.state["m.room.join_rules", ""]])


@case("auth events: unwanted", "- another user's membership")
def _(w: World) -> Judgement:
    return w.with_auth_events([*w.usual_auth_events(), w.state["m.room.member", OTHER]])


@case("auth events: unwanted", "- an event that is no state")
def _(w: World) -> Judgement:
    return w.with_auth_events([*w.usual_auth_events(), w.event("m.room.power_levels", CREATOR)])


@case("auth events: unwanted", "- power levels with a state key")
def _(w: World) -> Judgement:
    return w.with_auth_events([*w.usual_auth_events(), w.event("m.room.power_levels", CREATOR, {}, "x")])


@case("auth events: unwanted", "- the create event where the room id stands for it, or one with a state key")
def _(w: World) -> Judgement:
    extra = w.create
    if w.version.create_event_in_auth_events:
        extra = w.event("m.room.create", CREATOR, w.create.content, "x", prev_events=[])
    return w.with_auth_events([*w.usual_auth_events(), extra])


@case("auth events: rejected", "- an event that was rejected")
def _(w: World) -> Judgement:
    return w.with_auth_events(w.usual_auth_events(), rejected={w.usual_auth_events()[1].event_id})


@case("auth events: no create", "- no create event")
def _(w: World) -> Judgement:
    return w.with_auth_events(w.usual_auth_events()[:2])


@case("auth events: no create", "- a state without a create event")
def _(w: World) -> Judgement:
    del w.state["m.room.create", ""]
    return w.judge(w.event("m.room.message", USER))


@case("auth events: other room", "- the membership in another room")
def _(w: World) -> Judgement:
    foreign = w.event("m.room.member", USER, {"membership": "join"}, USER, room_id="!other:a.test")
    kept = [event for event in w.usual_auth_events() if event.type != "m.room.member"]
    return w.with_auth_events([*kept, foreign])


# ---- 3 (v12: 4): m.federate ----


@case("federate", "- a user of another server in a room that does not federate")
def _(w: World) -> Judgement:
    w.create.content["m.federate"] = False
    return w.judge(w.event("m.room.message", USER))


@case("federate", "- a join from another server to a room that does not federate")
def _(w: World) -> Judgement:
    w.create.content["m.federate"] = False
    w.set_join_rule("public")
    return w.membership(STRANGER, STRANGER, "join")


# ---- 4, v1 to v5: m.room.aliases ----


def aliases(w: World, state_key: str | None) -> Judgement:
    return w.judge(w.event("m.room.aliases", STRANGER, {"aliases": []}, state_key))


case_of("aliases: no state key", "- aliases that are no state", lambda w: aliases(w, None))
case_of("aliases: other server", "- aliases of another server", lambda w: aliases(w, "b.test"))
case_of("aliases: other server", "- aliases of no server", lambda w: aliases(w, ""))
case_of(
    "aliases: otherwise",
    "+ aliases of the sender's server, by nobody in the room",
    lambda w: aliases(w, "c.test"),
)
