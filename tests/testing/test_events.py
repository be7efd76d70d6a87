# SPDX-License-Identifier: Apache-2.0
"""RoomFactory: the rooms that other tests are made of."""

from __future__ import annotations

import pytest

from minihs.matrix.auth_rules import AuthError, check_auth, check_auth_events
from minihs.matrix.event import Event
from minihs.matrix.hashes import has_right_content_hash
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import servers_that_must_sign, verify_event_signature
from minihs.testing.events import RoomFactory, signing_key_of

VERSIONS = list(ROOM_VERSIONS)
ALICE, BOB, CAROL = "@alice:a.test", "@bob:b.test", "@carol:c.test"


def busy_room(version: str) -> RoomFactory:
    room = RoomFactory(version=version)
    room.join(BOB)
    base = room.set_power_levels(ALICE, users={BOB: 50})
    room.message(BOB)
    room.send(BOB, "m.room.topic", {"topic": "one"}, "")
    left = room.events[room.tips[0]]
    right = room.kick(ALICE, BOB, after=base)
    room.message(ALICE, after=[left, right])
    room.invite(ALICE, CAROL)
    room.join(CAROL)
    room.leave(CAROL)
    room.ban(ALICE, CAROL)
    if ROOM_VERSIONS[version].restricted_join:
        room.send(ALICE, "m.room.join_rules", {"join_rule": "restricted"}, "")
        room.join("@dave:d.test", {"join_authorised_via_users_server": ALICE})
    return room


@pytest.mark.parametrize("version", VERSIONS)
def test_every_event_is_what_another_server_would_accept(version: str) -> None:
    room = busy_room(version)
    for event in room.events.values():
        again = Event.from_wire(event.json, room.version)
        assert (again.event_id, again.room_id) == (event.event_id, room.room_id)
        assert has_right_content_hash(event)
        for server in servers_that_must_sign(event):
            key = signing_key_of(server)
            verify_event_signature(event, server, key.key_id, key.verify_key)
        auth_events = [room.events[auth_id] for auth_id in event.auth_events]
        check_auth_events(event, auth_events, room.rejected, room.create)
        check_auth(event, {auth.key: auth for auth in [room.create, *auth_events] if auth.key is not None})
        check_auth(event, room.state_before(event.prev_events))


@pytest.mark.parametrize("version", VERSIONS)
def test_states_are_known_after_each_event_and_merged_where_branches_meet(version: str) -> None:
    room = busy_room(version)
    by_type = {event.type: event for event in room.events.values()}
    topic = by_type["m.room.topic"]
    kick = next(e for e in room.events.values() if e.membership == "leave" and e.state_key == BOB)
    assert room.state_after(topic)["m.room.topic", ""] is topic
    assert room.state_after(topic)["m.room.member", BOB].membership == "join"
    assert ("m.room.topic", "") not in room.state_after(kick)
    merged = next(e for e in room.events.values() if len(e.prev_events) == 2)
    assert room.state_after(merged)["m.room.member", BOB] is kick
    assert room.state["m.room.member", CAROL].membership == "ban"


def test_the_same_calls_make_the_same_events_and_another_name_makes_others() -> None:
    assert list(busy_room("12").events) == list(busy_room("12").events)
    assert RoomFactory(name="one").room_id != RoomFactory(name="two").room_id


def test_what_the_rules_forbid_is_not_made_unless_asked_for() -> None:
    room = RoomFactory()
    tips = room.tips
    with pytest.raises(AuthError):
        room.message(BOB)
    assert room.tips == tips
    event = room.message(BOB, check=False)
    assert room.tips == (event.event_id,)


def test_a_rejected_event_is_in_the_room_and_changes_no_state() -> None:
    room = RoomFactory()
    before = room.state_before(room.tips)
    event = room.build(BOB, "m.room.topic", {"topic": "x"}, "")
    room.add(event, dict(before), room.tips, rejected=True)
    following = room.message(ALICE)
    assert following.prev_events == (event.event_id,)
    assert room.is_rejected(event.event_id)
    assert ("m.room.topic", "") not in room.state
    assert ("m.room.topic", "") not in room.state_after(event)
