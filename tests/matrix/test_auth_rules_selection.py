# SPDX-License-Identifier: Apache-2.0
"""Which auth events an event has."""

from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.auth_rules import AuthError, auth_types_for, check_auth_events
from minihs.matrix.room_versions import ROOM_VERSIONS
from tests.matrix.auth_world import ADMIN, MOD, STRANGER, USER, World

ALL = list(ROOM_VERSIONS)
LEVELS = ("m.room.power_levels", "")
RULES = ("m.room.join_rules", "")


def selected(
    version: str, type: str, sender: str, state_key: str | None, content: dict[str, Any]
) -> set[Any]:
    keys = auth_types_for(
        ROOM_VERSIONS[version], type=type, sender=sender, state_key=state_key, content=content
    )
    assert len(keys) == len(set(keys))
    create = ("m.room.create", "")
    assert (create in keys) is (version != "12")
    return set(keys) - {create}


def member(user: str) -> tuple[str, str]:
    return ("m.room.member", user)


@pytest.mark.parametrize("version", ALL)
def test_a_create_event_has_none(version: str) -> None:
    keys = auth_types_for(ROOM_VERSIONS[version], type="m.room.create", sender=USER, state_key="", content={})
    assert keys == []


@pytest.mark.parametrize("version", ALL)
def test_a_message_has_levels_and_its_sender(version: str) -> None:
    assert selected(version, "m.room.message", USER, None, {}) == {LEVELS, member(USER)}
    assert selected(version, "m.room.name", USER, "", {"membership": "join"}) == {LEVELS, member(USER)}


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("membership", ["join", "invite", "knock"])
def test_who_comes_in_has_the_join_rules_too(version: str, membership: str) -> None:
    keys = selected(version, "m.room.member", ADMIN, USER, {"membership": membership})
    assert keys == {LEVELS, RULES, member(ADMIN), member(USER)}


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("membership", ["leave", "ban", "odd", None, 1, ["join"], {}])
def test_who_goes_out_does_not(version: str, membership: Any) -> None:
    keys = selected(version, "m.room.member", ADMIN, USER, {"membership": membership})
    assert keys == {LEVELS, member(ADMIN), member(USER)}


@pytest.mark.parametrize("version", ALL)
def test_an_invite_by_token_has_the_offer(version: str) -> None:
    content = {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}}
    offer = ("m.room.third_party_invite", "t")
    assert offer in selected(version, "m.room.member", ADMIN, USER, content)
    content["membership"] = "join"
    assert offer not in selected(version, "m.room.member", ADMIN, USER, content)


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize(
    "invite", [None, 1, "x", [], {}, {"signed": None}, {"signed": []}, {"signed": {"token": None}},
               {"signed": {"token": ["t"]}}, {"signed": {"token": {}}}]
)  # fmt: skip
def test_an_offer_without_a_token_is_not_looked_for(version: str, invite: Any) -> None:
    content = {"membership": "invite", "third_party_invite": invite}
    keys = selected(version, "m.room.member", ADMIN, USER, content)
    assert keys == {LEVELS, RULES, member(ADMIN), member(USER)}


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("authoriser", [MOD, USER, "x", None, 1, [MOD]])
def test_an_authorised_join_has_the_authoriser_since_version_8(version: str, authoriser: Any) -> None:
    content = {"membership": "join", "join_authorised_via_users_server": authoriser}
    expected = {LEVELS, RULES, member(USER)}
    if int(version) >= 8 and isinstance(authoriser, str):
        expected.add(member(authoriser))
    assert selected(version, "m.room.member", USER, USER, content) == expected


@pytest.mark.parametrize("version", ALL)
def test_the_usual_auth_events_pass(version: str) -> None:
    w = World(version)
    assert w.with_auth_events(w.usual_auth_events())() == ""


@pytest.mark.parametrize("version", ALL)
def test_fewer_auth_events_than_there_could_be_pass(version: str) -> None:
    # Whether they suffice is for the other rules to say.
    w = World(version)
    few = [w.create] if version != "12" else []
    assert w.with_auth_events(few)() == ""


@pytest.mark.parametrize("version", ALL)
def test_a_create_event_is_not_asked_for_its_auth_events(version: str) -> None:
    w = World(version)
    odd = w.event("m.room.create", ADMIN, {}, "", prev_events=[], auth_events=[w.state[LEVELS]])
    check_auth_events(odd, [w.state[LEVELS]], {odd.event_id}, None)


@pytest.mark.parametrize("version", ALL)
def test_to_check_with_other_auth_events_than_the_events_own_is_a_mistake_of_ours(version: str) -> None:
    w = World(version)
    event = w.event("m.room.message", USER, auth_events=w.usual_auth_events())
    for others in ([], w.usual_auth_events()[:1], [*w.usual_auth_events(), w.state[member(ADMIN)]]):
        with pytest.raises(ValueError, match="exactly"):
            check_auth_events(event, others, frozenset(), w.create)


@pytest.mark.parametrize("version", ALL)
def test_an_event_that_is_its_own_auth_event_is_refused(version: str) -> None:
    w = World(version)
    event = w.event("m.room.message", USER, auth_events=w.usual_auth_events())
    event.auth_events = (event.event_id, *event.auth_events)
    with pytest.raises(AuthError):
        check_auth_events(event, [event, *w.usual_auth_events()], frozenset(), w.create)


@pytest.mark.parametrize("version", ALL)
def test_a_thousand_auth_events_are_refused(version: str) -> None:
    w = World(version)
    many = [w.event("m.room.member", STRANGER, {}, f"@u{n}:c.test") for n in range(1000)]
    with pytest.raises(AuthError):
        w.with_auth_events([*w.usual_auth_events(), *many])()
