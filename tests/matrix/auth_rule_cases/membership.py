# SPDX-License-Identifier: Apache-2.0
"""The rule for m.room.member, without third-party invites."""

from __future__ import annotations

from typing import Any

from tests.matrix.auth_rule_cases.registry import case, case_of
from tests.matrix.auth_world import ADMIN, CREATOR, MOD, OTHER, STRANGER, USER, Judgement, World

# ---- 5 (v6 to v11: 4): m.room.member ----


@case("member: incomplete", "- a membership without a state key")
def _(w: World) -> Judgement:
    return w.judge(w.event("m.room.member", USER, {"membership": "join"}))


@case("member: incomplete", "- a membership event without a membership")
def _(w: World) -> Judgement:
    return w.judge(w.event("m.room.member", USER, {"displayname": "U"}, USER))


def authorised(w: World, by: Any, signed_by: list[str], membership: str = "join") -> Judgement:
    content = {"membership": membership, "join_authorised_via_users_server": by}
    return w.judge(w.event("m.room.member", STRANGER, content, STRANGER, signed_by=["c.test", *signed_by]))


case_of(
    "member: authorised but not signed",
    "- a join that the authoriser's server did not sign",
    lambda w: authorised(w, MOD, []),
)
case_of(
    "member: authorised but not signed",
    "- a join that another server signed",
    lambda w: authorised(w, MOD, ["b.test"]),
)
case_of(
    "member: authorised but not signed",
    "- a leave that says it was authorised",
    lambda w: authorised(w, MOD, [], "leave"),
)
for nobody in (None, 1, True, "", "mod", "@mod", "a.test", [MOD], {"a.test": 1}):
    case_of(
        "member: authorised but not signed",
        f"- a join authorised by {nobody!r}",
        lambda w, nobody=nobody: authorised(w, nobody, ["a.test"]),
    )


@case("join: creator first", "+ the creator's join right after the create event")
def _(w: World) -> Judgement:
    w.state = {("m.room.create", ""): w.create}
    return w.judge(
        w.event("m.room.member", CREATOR, {"membership": "join"}, CREATOR, prev_events=[w.create.event_id])
    )


@case("join: for another", "- a join for somebody else")
def _(w: World) -> Judgement:
    w.set_join_rule("public")
    return w.membership(ADMIN, STRANGER, "join")


@case("join: for another", "- a first join for somebody who did not create the room")
def _(w: World) -> Judgement:
    w.state = {("m.room.create", ""): w.create}
    return w.judge(
        w.event("m.room.member", CREATOR, {"membership": "join"}, USER, prev_events=[w.create.event_id])
    )


for rule in ("public", "invite", "knock", "restricted"):

    @case("join: banned", f"- a banned user, whatever the join rule, here {rule}")
    def _(w: World, rule: str = rule) -> Judgement:
        w.set_join_rule(rule)
        w.member(STRANGER, "ban", ADMIN)
        return w.membership(STRANGER, STRANGER, "join")


@case("join: invited", "+ an invited user")
def _(w: World) -> Judgement:
    w.member(STRANGER, "invite", ADMIN)
    return w.membership(STRANGER, STRANGER, "join")


@case("join: invited", "+ a member who changes their profile")
def _(w: World) -> Judgement:
    return w.membership(USER, USER, "join", displayname="New")


@case("join: invited", "+ an invited user where there is no join rule")
def _(w: World) -> Judgement:
    del w.state["m.room.join_rules", ""]
    w.member(STRANGER, "invite", ADMIN)
    return w.membership(STRANGER, STRANGER, "join")


def restricted(w: World) -> None:
    w.set_join_rule("restricted")


@case("join: restricted, invited", "+ an invited user of a restricted room")
def _(w: World) -> Judgement:
    restricted(w)
    w.member(STRANGER, "invite", ADMIN)
    return w.membership(STRANGER, STRANGER, "join")


@case("join: restricted, not authorised", "- nobody authorised the join")
def _(w: World) -> Judgement:
    restricted(w)
    return w.membership(STRANGER, STRANGER, "join")


@case("join: restricted, not authorised", "- a user authorised the join who is not in the room")
def _(w: World) -> Judgement:
    restricted(w)
    w.member(MOD, "leave")
    return authorised(w, MOD, ["a.test"])


@case("join: restricted, not authorised", "- a user authorised the join who may not invite")
def _(w: World) -> Judgement:
    restricted(w)
    w.set_levels(invite=51)
    return authorised(w, MOD, ["a.test"])


@case("join: restricted, authorised", "+ a member with just enough power authorised the join")
def _(w: World) -> Judgement:
    restricted(w)
    w.set_levels(invite=50)
    return authorised(w, MOD, ["a.test"])


@case("join: public", "+ anybody in a public room")
def _(w: World) -> Judgement:
    w.set_join_rule("public")
    return w.membership(STRANGER, STRANGER, "join")


@case("join: public", "+ who left, in a public room")
def _(w: World) -> Judgement:
    w.set_join_rule("public")
    w.member(STRANGER, "leave")
    return w.membership(STRANGER, STRANGER, "join")


@case("join: otherwise", "- a stranger in a room for the invited")
def _(w: World) -> Judgement:
    return w.membership(STRANGER, STRANGER, "join")


@case("join: otherwise", "- a stranger where there is no join rule")
def _(w: World) -> Judgement:
    del w.state["m.room.join_rules", ""]
    return w.membership(STRANGER, STRANGER, "join")


@case("join: otherwise", "- who left, in a room for the invited")
def _(w: World) -> Judgement:
    w.member(STRANGER, "leave")
    return w.membership(STRANGER, STRANGER, "join")


@case("join: otherwise", "- even a member in a private room")
def _(w: World) -> Judgement:
    w.set_join_rule("private")
    return w.membership(USER, USER, "join")


for odd in (None, 1, True, [], {}, "PUBLIC", "public "):

    @case("join: otherwise", f"- the join rule {odd!r}")
    def _(w: World, odd: Any = odd) -> Judgement:
        w.set_join_rule(odd)
        return w.membership(STRANGER, STRANGER, "join")


# ---- 5.3: invites ----


@case("invite: sender not joined", "- by somebody who left")
def _(w: World) -> Judgement:
    w.member(MOD, "leave")
    return w.membership(MOD, STRANGER, "invite")


@case("invite: sender not joined", "- by somebody who is only invited")
def _(w: World) -> Judgement:
    w.member(STRANGER, "invite", ADMIN)
    return w.membership(STRANGER, "@friend:c.test", "invite")


for there in ("join", "ban"):

    @case("invite: target joined or banned", f"- of a user whose membership is {there}")
    def _(w: World, there: str = there) -> Judgement:
        w.member(STRANGER, there, ADMIN)
        return w.membership(ADMIN, STRANGER, "invite")


case_of(
    "invite: enough power",
    "+ by any member, since the level is 0",
    lambda w: w.membership(USER, STRANGER, "invite"),
)


@case("invite: enough power", "+ by a member with just enough power")
def _(w: World) -> Judgement:
    w.set_levels(invite=50)
    return w.membership(MOD, STRANGER, "invite")


@case("invite: enough power", "+ of a user who is invited already")
def _(w: World) -> Judgement:
    w.member(STRANGER, "invite", ADMIN)
    return w.membership(USER, STRANGER, "invite")


@case("invite: otherwise", "- by a member with too little power")
def _(w: World) -> Judgement:
    w.set_levels(invite=51)
    return w.membership(MOD, STRANGER, "invite")


# ---- 5.4: leaving and being made to ----

for gone in ("join", "invite"):

    @case("leave: oneself", f"+ by a user whose membership is {gone}")
    def _(w: World, gone: str = gone) -> Judgement:
        w.member(STRANGER, gone, ADMIN)
        return w.membership(STRANGER, STRANGER, "leave")


case_of(
    "leave: oneself", "- by a user who was never there", lambda w: w.membership(STRANGER, STRANGER, "leave")
)
for gone in ("leave", "ban"):

    @case("leave: oneself", f"- by a user whose membership is {gone}")
    def _(w: World, gone: str = gone) -> Judgement:
        w.member(STRANGER, gone, ADMIN)
        return w.membership(STRANGER, STRANGER, "leave")


@case("leave: sender not joined", "- a kick by somebody who left")
def _(w: World) -> Judgement:
    w.member(ADMIN, "leave")
    return w.membership(ADMIN, USER, "leave")


@case("leave: no power to unban", "- an unban by a user who may kick but not ban")
def _(w: World) -> Judgement:
    w.set_levels(ban=51, kick=0)
    w.member(STRANGER, "ban", ADMIN)
    return w.membership(MOD, STRANGER, "leave")


@case("leave: enough power", "+ a kick with just enough power")
def _(w: World) -> Judgement:
    return w.membership(MOD, USER, "leave")


@case("leave: enough power", "+ an unban with just enough power")
def _(w: World) -> Judgement:
    w.member(STRANGER, "ban", ADMIN)
    return w.membership(MOD, STRANGER, "leave")


@case("leave: enough power", "+ an invite taken back")
def _(w: World) -> Judgement:
    w.member(STRANGER, "invite", ADMIN)
    return w.membership(MOD, STRANGER, "leave")


case_of("leave: otherwise", "- a kick with too little power", lambda w: w.membership(USER, OTHER, "leave"))


@case("leave: otherwise", "- a kick of an equal")
def _(w: World) -> Judgement:
    w.set_levels(users={**w.levels["users"], USER: 50})
    return w.membership(MOD, USER, "leave")


@case("leave: otherwise", "- an unban by a user who may ban but not kick")
def _(w: World) -> Judgement:
    w.set_levels(ban=0, kick=51)
    w.member(STRANGER, "ban", ADMIN)
    return w.membership(MOD, STRANGER, "leave")


# ---- 5.5: bans ----


@case("ban: sender not joined", "- by somebody who left")
def _(w: World) -> Judgement:
    w.member(ADMIN, "leave")
    return w.membership(ADMIN, USER, "ban")


case_of("ban: enough power", "+ with just enough power", lambda w: w.membership(MOD, USER, "ban"))
case_of("ban: enough power", "+ of a user who was never there", lambda w: w.membership(MOD, STRANGER, "ban"))
case_of("ban: otherwise", "- with too little power", lambda w: w.membership(USER, STRANGER, "ban"))
case_of("ban: otherwise", "- of a superior", lambda w: w.membership(MOD, ADMIN, "ban"))
case_of("ban: otherwise", "- of oneself", lambda w: w.membership(MOD, MOD, "ban"))
case_of("ban: otherwise", "- of the creator", lambda w: w.membership(ADMIN, CREATOR, "ban"))


# ---- knocks ----


def knock(w: World, rule: Any = "knock", sender: str = STRANGER, target: str = STRANGER) -> Judgement:
    w.set_join_rule(rule)
    return w.membership(sender, target, "knock")


for rule in ("invite", "public", "restricted", "private", None, 1):
    case_of("knock: join rule", f"- the join rule {rule!r}", lambda w, rule=rule: knock(w, rule))


@case("knock: join rule", "- no join rule at all")
def _(w: World) -> Judgement:
    del w.state["m.room.join_rules", ""]
    return w.membership(STRANGER, STRANGER, "knock")


case_of("knock: for another", "- a knock for somebody else", lambda w: knock(w, sender=ADMIN))
case_of("knock: outsider", "+ by a stranger", knock)
for before in ("leave", "knock"):

    @case("knock: outsider", f"+ by a user whose membership is {before}")
    def _(w: World, before: str = before) -> Judgement:
        w.member(STRANGER, before, ADMIN)
        return knock(w)


for before in ("ban", "invite", "join"):

    @case("knock: otherwise", f"- by a user whose membership is {before}")
    def _(w: World, before: str = before) -> Judgement:
        w.member(STRANGER, before, ADMIN)
        return knock(w)


for unknown in ("peek", "", "JOIN", None, 1, True, ["join"], {"join": 1}):
    case_of(
        "member: unknown",
        f"- the membership {unknown!r}",
        lambda w, unknown=unknown: w.membership(USER, USER, unknown),
    )
