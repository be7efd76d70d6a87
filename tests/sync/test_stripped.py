# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from minihs.store import ids, memberships, rooms, timeline
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent, insert
from minihs.store.packing import pack
from minihs.sync.visibility import HostVisibility
from minihs.testing.events import RoomFactory
from tests.sync.world import ALICE, BOB, DAVE, OUR_NAME, Json, World

GOOD: Json = {"type": "m.room.name", "state_key": "", "sender": DAVE, "content": {"name": "Den"}}


async def invite_from_elsewhere(world: World, stripped: object) -> str:
    """An invite to Bob in a room that we are not in."""
    factory = RoomFactory(version="11", creator=DAVE)
    invite = factory.send(DAVE, "m.room.member", {"membership": "invite"}, BOB)
    room_id = invite.room_id

    def store(tx: Tx) -> None:
        nid = rooms.intern(tx, room_id, "11")
        event_nid = insert(tx, nid, NewEvent(invite, Outcome.ACCEPTED, 1, outlier=True))
        memberships.set_out_of_band(
            tx, nid, room_id, BOB, "invite", event_nid, our_name=OUR_NAME, stripped=json.dumps(stripped)
        )

    await world.db.write(store)
    return room_id


async def test_what_another_server_sends_along_is_cut_down_to_the_format(world: World) -> None:
    since = (await world.sync(BOB))["next_batch"]
    stripped = [
        {**GOOD, "event_id": "$x", "signatures": {}, "unsigned": {"age": 5}},
        {**GOOD, "type": 5},
        {**GOOD, "content": "text"},
        {**GOOD, "state_key": None},
        {**GOOD, "type": "m.room.member", "state_key": BOB, "content": {"membership": "join"}},
        "rubbish",
        None,
    ]
    room_id = await invite_from_elsewhere(world, stripped)
    answer = await world.sync(BOB, since)
    shown = answer["rooms"]["invite"][room_id]["invite_state"]["events"]
    assert shown[0] == GOOD
    assert [(event["type"], event["content"]) for event in shown[1:]] == [
        ("m.room.member", {"membership": "invite"})
    ]


@pytest.mark.parametrize("stripped", [{}, "text", None, 5, [{"type": "x"}] * 5000])
async def test_stripped_state_of_any_shape_breaks_nothing(world: World, stripped: object) -> None:
    room_id = await invite_from_elsewhere(world, stripped)
    shown = (await world.sync(BOB))["rooms"]["invite"][room_id]["invite_state"]["events"]
    assert shown[-1]["state_key"] == BOB


async def test_a_knock_is_shown_until_it_is_taken_back(world: World) -> None:
    room = await world.room(
        name="Den",
        initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}],
    )
    first = await world.sync(BOB)
    await world.rooms.knock(BOB, room)
    answer = await world.sync(BOB, first["next_batch"])
    shown = answer["rooms"]["knock"][room]["knock_state"]["events"]
    assert {"m.room.create", "m.room.name"} <= {event["type"] for event in shown}
    assert shown[-1]["content"]["membership"] == "knock"
    await world.rooms.leave(BOB, room)
    answer = await world.sync(BOB, answer["next_batch"])
    assert answer["rooms"]["knock"] == {}
    assert [event["state_key"] for event in answer["rooms"]["leave"][room]["timeline"]["events"]] == [BOB]


async def test_rooms_are_told_what_another_server_may_see(world: World) -> None:
    room = await world.room()
    await world.rooms.send(
        ALICE, room, "m.room.history_visibility", {"history_visibility": "joined"}, state_key=""
    )
    hidden = await world.say(ALICE, room, "hidden")
    await world.member(DAVE, room, "join")
    shown = await world.say(ALICE, room, "shown")
    asked = HostVisibility(world.facts)
    numbers = ids.event_nids(world.db.read, [hidden, shown])
    assert asked(world.db.read, "there.test", list(numbers.values())) == {numbers[shown]}
    assert asked(world.db.read, "there.test", []) == set()


async def test_integers_that_no_double_can_hold_are_shown_as_they_are(world: World) -> None:
    """Rooms before version 6 may have such events."""
    room = await world.room(room_version="5")
    event_id, large = await world.say(ALICE, room, "large"), 2**70
    row = timeline.by_event_id(world.db.read, world.room_nid(room), event_id)
    assert row is not None
    nid = row.nid
    [(_, pdu)] = timeline.bodies(world.db.read, [nid]).values()
    packed = pack(json.dumps({**pdu, "content": {"n": large}}).encode())

    def enlarge(tx: Tx) -> None:
        tx.execute("UPDATE event_json SET json = ? WHERE event_nid = ?", (packed, nid))

    await world.db.write(enlarge)
    world.facts.bodies.take_over({})  # so that it is read, as on a later day
    events = (await world.sync(ALICE))["rooms"]["join"][room]["timeline"]["events"]
    assert events[-1]["content"] == {"n": large}
