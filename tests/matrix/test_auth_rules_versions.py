# SPDX-License-Identifier: Apache-2.0
"""What one room version knows and another does not, in the authorisation rules."""

from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.auth_rules import AuthError, allowing_rule, redaction_allowed
from minihs.matrix.room_versions import ROOM_VERSIONS
from tests.matrix.auth_world import ADMIN, CREATOR, MOD, OTHER, STRANGER, USER, Judgement, World

ALL = list(ROOM_VERSIONS)


def since(version: int) -> dict[str, bool]:
    return {name: int(name) >= version for name in ALL}


def allowed(judgement: Judgement) -> bool:
    try:
        judgement()
    except AuthError:
        return False
    return True


@pytest.mark.parametrize(("version", "known"), since(7).items())
def test_knocking_exists_since_version_7(version: str, known: bool) -> None:
    w = World(version)
    w.set_join_rule("knock")
    assert allowed(w.membership(STRANGER, STRANGER, "knock")) is known
    w.member(STRANGER, "invite", ADMIN)
    assert allowed(w.membership(STRANGER, STRANGER, "join")) is known


@pytest.mark.parametrize(("version", "known"), since(7).items())
def test_a_knock_can_be_taken_back_since_version_7(version: str, known: bool) -> None:
    w = World(version)
    w.member(STRANGER, "knock")
    assert allowed(w.membership(STRANGER, STRANGER, "leave")) is known


@pytest.mark.parametrize(("version", "known"), since(8).items())
def test_restricted_joins_exist_since_version_8(version: str, known: bool) -> None:
    w = World(version)
    w.set_join_rule("restricted")
    event = w.event(
        "m.room.member",
        STRANGER,
        {"membership": "join", "join_authorised_via_users_server": MOD},
        STRANGER,
        signed_by=["a.test"],
    )
    assert allowed(w.judge(event)) is known


@pytest.mark.parametrize(("version", "known"), since(8).items())
def test_a_signature_of_the_authorising_server_is_asked_for_since_version_8(
    version: str, known: bool
) -> None:
    w = World(version)
    unsigned = w.membership(USER, USER, "join", join_authorised_via_users_server=MOD)
    assert allowed(unsigned) is not known


@pytest.mark.parametrize(("version", "known"), since(10).items())
def test_the_join_rule_knock_restricted_exists_since_version_10(version: str, known: bool) -> None:
    w = World(version)
    w.set_join_rule("knock_restricted")
    assert allowed(w.membership(STRANGER, STRANGER, "knock")) is known
    w.member(STRANGER, "invite", ADMIN)
    assert allowed(w.membership(STRANGER, STRANGER, "join")) is known


@pytest.mark.parametrize(("version", "plain"), since(6).items())
def test_aliases_are_like_any_state_since_version_6(version: str, plain: bool) -> None:
    w = World(version)
    assert allowed(w.judge(w.event("m.room.aliases", STRANGER, {}, "c.test"))) is not plain
    assert allowed(w.judge(w.event("m.room.aliases", ADMIN, {}, "c.test"))) is plain


@pytest.mark.parametrize(("version", "plain"), since(3).items())
def test_any_member_may_send_a_redaction_since_version_3(version: str, plain: bool) -> None:
    w = World(version)
    assert allowed(w.judge(w.event("m.room.redaction", USER, {}, redacts="$x:a.test"))) is plain


@pytest.mark.parametrize(("version", "checked"), since(6).items())
def test_notification_levels_are_checked_since_version_6(version: str, checked: bool) -> None:
    w = World(version)
    w.set_levels(state_default=0)
    assert allowed(w.changed_levels(MOD, notifications={"room": 51})) is not checked
    assert allowed(w.changed_levels(MOD, notifications={"room": 50}))
    w.set_levels(notifications={"room": 51})
    assert allowed(w.changed_levels(MOD, notifications={})) is not checked


@pytest.mark.parametrize(("version", "strict"), since(10).items())
@pytest.mark.parametrize("text", ["50", "+50", "-50", " 50 ", "00050", "\t-0050\n", "0", "000", "-0"])
def test_strings_are_levels_before_version_10(version: str, strict: bool, text: str) -> None:
    w = World(version)
    for content in (
        {"users": {USER: text}},
        {"users": {}, "ban": text},
        {"users": {}, "events": {"x": text}},
    ):
        del w.state["m.room.power_levels", ""]
        assert allowed(w.levels_event(CREATOR, content)) is not strict
        w.set_levels()


@pytest.mark.parametrize(("version", "strict"), since(6).items())
def test_floats_are_levels_before_version_6(version: str, strict: bool) -> None:
    w = World(version)
    assert (
        allowed(w.levels_event(ADMIN, {**w.levels, "users": {**w.levels["users"], USER: 5.9}})) is not strict
    )


@pytest.mark.parametrize("version", ["1", "2", "3", "4", "5"])
@pytest.mark.parametrize("endless", [float("inf"), float("-inf"), float("nan")])
def test_a_level_beyond_all_numbers_spoils_the_first_power_levels_too(version: str, endless: float) -> None:
    w = World(version)
    del w.state["m.room.power_levels", ""]
    for content in ({"ban": endless}, {"events": {"x": endless}}, {"users": {USER: endless}}):
        assert not allowed(w.levels_event(CREATOR, content))


@pytest.mark.parametrize("version", ["1", "5", "6", "9"])
@pytest.mark.parametrize("rubbish", [None, True, [], {}, "x", "5.5"])
def test_levels_that_are_none_pass_at_first_but_cannot_be_put_there_later(version: str, rubbish: Any) -> None:
    w = World(version)
    del w.state["m.room.power_levels", ""]
    for content in ({"ban": rubbish}, {"events": {"x": rubbish}}, {"events": rubbish}):
        assert allowed(w.levels_event(CREATOR, content))
    w.set_levels()
    assert not allowed(w.changed_levels(ADMIN, ban={"x": rubbish}))
    assert not allowed(w.changed_levels(ADMIN, events={"x": rubbish}))
    # What stood there already does not bind anybody and may stay or go.
    w.set_levels(ban=rubbish, events={"x": rubbish})
    assert allowed(w.changed_levels(ADMIN))
    assert allowed(w.changed_levels(ADMIN, ban=None, events=None))


@pytest.mark.parametrize(("version", "infinite"), since(12).items())
def test_creators_have_infinite_power_since_version_12(version: str, infinite: bool) -> None:
    w = World(version)
    w.create.content["additional_creators"] = [OTHER]
    w.set_levels(users={ADMIN: 2**53 - 1}, state_default=2**53 - 1)
    assert allowed(w.membership(OTHER, ADMIN, "ban")) is infinite
    assert allowed(w.membership(CREATOR, ADMIN, "ban")) is infinite
    assert not allowed(w.membership(CREATOR, OTHER, "ban")) or not infinite
    assert not allowed(w.membership(OTHER, CREATOR, "leave"))


@pytest.mark.parametrize("version", ["12"])
def test_only_the_sender_of_the_create_event_joins_first(version: str) -> None:
    w = World(version)
    w.create.content["additional_creators"] = [OTHER]
    w.state = {("m.room.create", ""): w.create}
    first = [w.create.event_id]
    join = w.event("m.room.member", OTHER, {"membership": "join"}, OTHER, prev_events=first)
    assert not allowed(w.judge(join))


@pytest.mark.parametrize("version", ["1", "10"])
def test_until_version_10_the_creator_is_who_the_content_says(version: str) -> None:
    w = World(version)
    w.create.content["creator"] = OTHER
    w.state = {("m.room.create", ""): w.create}
    first = [w.create.event_id]
    join = w.event("m.room.member", OTHER, {"membership": "join"}, OTHER, prev_events=first)
    assert allowed(w.judge(join))
    join = w.event("m.room.member", CREATOR, {"membership": "join"}, CREATOR, prev_events=first)
    assert not allowed(w.judge(join))


@pytest.mark.parametrize("version", ALL)
def test_the_creator_joins_first_only_straight_after_the_create_event(version: str) -> None:
    w = World(version)
    w.state = {("m.room.create", ""): w.create}
    for previous in ([], ["$other"], [w.create.event_id, "$other"]):
        join = w.event("m.room.member", CREATOR, {"membership": "join"}, CREATOR, prev_events=previous)
        assert not allowed(w.judge(join))


@pytest.mark.parametrize("version", ALL)
def test_no_event_is_judged_by_the_state_of_another_room(version: str) -> None:
    w = World(version)
    foreign = w.event("m.room.message", USER, room_id="!elsewhere:a.test")
    with pytest.raises(AuthError, match="another room"):
        allowing_rule(foreign, w.state)


@pytest.mark.parametrize(("version", "at_handling"), since(3).items())
def test_redactions_take_effect_by_power_or_by_server(version: str, at_handling: bool) -> None:
    w = World(version)
    message = w.event("m.room.message", OTHER)
    for sender, effect in ((MOD, True), (USER, True), ("@x:c.test", not at_handling)):
        redaction = w.event("m.room.redaction", sender, redacts=message.event_id)
        assert redaction_allowed(redaction, message, w.state) is effect


@pytest.mark.parametrize("version", ALL)
def test_a_redaction_has_no_effect_in_another_room(version: str) -> None:
    w = World(version)
    foreign = w.event("m.room.message", OTHER, room_id="!elsewhere:a.test")
    redaction = w.event("m.room.redaction", ADMIN, redacts=foreign.event_id)
    assert not redaction_allowed(redaction, foreign, w.state)
