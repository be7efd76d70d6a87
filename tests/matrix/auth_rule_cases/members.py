# SPDX-License-Identifier: Apache-2.0
"""What takes a member, and power; redactions."""

from __future__ import annotations

from typing import Any

from tests.matrix.auth_rule_cases.registry import case, case_of
from tests.matrix.auth_world import ADMIN, CREATOR, MOD, STRANGER, USER, Judgement, World

# ---- 6 (v6 to v11: 5) and after ----

for type in ("m.room.message", "m.room.name", "m.room.power_levels", "m.room.third_party_invite"):
    case_of(
        "sender not joined",
        f"- {type} by a stranger",
        lambda w, type=type: w.judge(w.event(type, STRANGER, {}, "" if type[7] != "m" else None)),
    )
for away in ("leave", "invite", "ban", "knock"):

    @case("sender not joined", f"- a message by a user whose membership is {away}")
    def _(w: World, away: str = away) -> Judgement:
        w.member(ADMIN, away, CREATOR)
        return w.judge(w.event("m.room.message", ADMIN))


def tpi(w: World, sender: str, level: int) -> Judgement:
    w.set_levels(invite=level, events={"m.room.third_party_invite": 100}, state_default=100)
    return w.judge(w.event("m.room.third_party_invite", sender, {}, "token"))


case_of("third-party invite", "+ with just the power to invite, and no other", lambda w: tpi(w, MOD, 50))
case_of("third-party invite", "- with less than the power to invite", lambda w: tpi(w, MOD, 51))

case_of(
    "not enough power",
    "- state with less power than the default of 50",
    lambda w: w.judge(w.event("m.room.name", USER, {}, "")),
)


@case("not enough power", "- a message with less power than its type takes")
def _(w: World) -> Judgement:
    w.set_levels(events={"m.room.message": 1})
    return w.judge(w.event("m.room.message", USER))


@case("not enough power", "- a message with less power than the default for messages")
def _(w: World) -> Judgement:
    w.set_levels(events_default=1)
    return w.judge(w.event("m.room.message", USER))


@case("not enough power", "- state with less power than the default for state")
def _(w: World) -> Judgement:
    w.set_levels(state_default=51)
    return w.judge(w.event("m.room.name", MOD, {}, ""))


@case("not enough power", "- state by a member of a room without power levels")
def _(w: World) -> Judgement:
    del w.state["m.room.power_levels", ""]
    return w.judge(w.event("m.room.name", ADMIN, {}, ""))


case_of(
    "another user's state",
    "- state under another user's id",
    lambda w: w.judge(w.event("test.state", ADMIN, {}, USER)),
)
case_of(
    "another user's state",
    "- state under something that begins like a user id",
    lambda w: w.judge(w.event("test.state", ADMIN, {}, "@")),
)

case_of("otherwise", "+ a message", lambda w: w.judge(w.event("m.room.message", USER)))
case_of("otherwise", "+ state with just enough power", lambda w: w.judge(w.event("m.room.name", MOD, {}, "")))
case_of("otherwise", "+ state under one's own id", lambda w: w.judge(w.event("test.state", MOD, {}, MOD)))


@case("otherwise", "+ state by the creator of a room without power levels")
def _(w: World) -> Judgement:
    del w.state["m.room.power_levels", ""]
    return w.judge(w.event("m.room.name", CREATOR, {}, ""))


@case("otherwise", "+ a user of the creator's server in a room that does not federate")
def _(w: World) -> Judgement:
    w.create.content["m.federate"] = False
    return w.judge(w.event("m.room.message", ADMIN))


for truth in (True, None, 0, "false", [], {}):

    @case("otherwise", f"+ a user of another server where m.federate is {truth!r}")
    def _(w: World, truth: Any = truth) -> Judgement:
        w.create.content["m.federate"] = truth
        return w.judge(w.event("m.room.message", USER))


# ---- 11, v1 and v2: redactions ----


def redaction(w: World, sender: str, target: Any) -> Judgement:
    return w.judge(w.event("m.room.redaction", sender, {}, redacts=target))


case_of("redaction: enough power", "+ with just enough power", lambda w: redaction(w, MOD, "$x:z.test"))
case_of(
    "redaction: own server", "+ of an event of the sender's server", lambda w: redaction(w, USER, "$x:b.test")
)
for target in ("$x:a.test", "$x", "b.test", "", None, 1, ["$x:b.test"]):
    case_of(
        "redaction: otherwise",
        f"- of {target!r} by a plain member",
        lambda w, target=target: redaction(w, USER, target),
    )
