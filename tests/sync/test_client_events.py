# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.sync.room_reads import RoomReads
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World

FORMAT = {
    "type", "sender", "content", "event_id", "origin_server_ts", "unsigned", "state_key", "room_id",
    "redacts",
}  # fmt: skip


def read(world: World, user: str, room: str, event_id: str, device: str = "PHONE") -> Json:
    return RoomReads(world.db, world.runtime, world.facts).event(Requester(user, device, 1), room, event_id)


async def test_an_event_has_what_the_format_names_and_nothing_else(world: World) -> None:
    room = await world.room()
    event_id = await world.say(ALICE, room, "hello")
    event = read(world, ALICE, room, event_id)
    assert event.keys() <= FORMAT
    assert event["event_id"] == event_id
    assert event["room_id"] == room
    assert event["unsigned"]["age"] > 0
    assert event["unsigned"]["membership"] == "join"
    assert "state_key" not in event
    answer = await world.sync(ALICE)
    for event in answer["rooms"]["join"][room]["timeline"]["events"]:
        assert event.keys() <= FORMAT - {"room_id"}


async def test_the_transaction_id_is_shown_to_the_sending_device_only(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    event_id = await world.rooms.send(
        ALICE, room, "m.room.message", {"body": "hi"}, device_id="PHONE", txn_id="t1"
    )
    assert read(world, ALICE, room, event_id)["unsigned"]["transaction_id"] == "t1"
    for user, device in ((ALICE, "LAPTOP"), (BOB, "PHONE")):
        assert "transaction_id" not in read(world, user, room, event_id, device)["unsigned"]


@pytest.mark.parametrize("version", ["1", "10", "11", "12"])
async def test_a_redacted_event_and_its_redaction(world: World, version: str) -> None:
    room = await world.room(room_version=version)
    event_id = await world.say(ALICE, room, "a secret")
    redaction_id = await world.rooms.redact(ALICE, room, event_id, {"reason": "oops"}, None, None)
    event = read(world, ALICE, room, event_id)
    assert event["content"] == {}
    because = event["unsigned"]["redacted_because"]
    assert because["event_id"] == redaction_id
    assert because["content"]["reason"] == "oops"
    assert "auth_events" not in because
    redaction = read(world, ALICE, room, redaction_id)
    assert redaction["redacts"] == redaction["content"]["redacts"] == event_id


async def test_a_redaction_that_was_not_allowed_is_not_shown_in_timelines(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    event_id = await world.say(ALICE, room, "mine")
    first = await world.sync(ALICE)
    await world.receive(DAVE, room, "m.room.redaction", {"redacts": event_id})
    await world.receive(DAVE, room, "m.room.redaction", {"redacts": "$nothing-like-this"})
    await world.say(ALICE, room, "go on")
    timeline = (await world.sync(ALICE, first["next_batch"]))["rooms"]["join"][room]["timeline"]
    assert [event["type"] for event in timeline["events"]] == ["m.room.message"]
    assert read(world, ALICE, room, event_id)["content"]["body"] == "mine"


async def test_a_state_event_says_what_it_replaced(world: World) -> None:
    room = await world.room(name="old")
    first = await world.rooms.send(ALICE, room, "m.room.name", {"name": "middle"}, state_key="")
    second = await world.rooms.send(ALICE, room, "m.room.name", {"name": "new"}, state_key="")
    unsigned = read(world, ALICE, room, second)["unsigned"]
    assert unsigned["replaces_state"] == first
    assert unsigned["prev_content"] == {"name": "middle"}
    topic = await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "new"}, state_key="")
    assert "replaces_state" not in read(world, ALICE, room, topic)["unsigned"]


async def test_what_was_replaced_is_withheld_from_who_may_not_see_it(world: World) -> None:
    room = await world.room()
    await world.rooms.send(
        ALICE, room, "m.room.history_visibility", {"history_visibility": "joined"}, state_key=""
    )
    before = await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "secret"}, state_key="")
    await world.rooms.join(BOB, room)
    after = await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "public"}, state_key="")
    unsigned = read(world, BOB, room, after)["unsigned"]
    assert unsigned["replaces_state"] == before
    assert "prev_content" not in unsigned


async def test_the_readers_membership_at_the_event_is_told(world: World) -> None:
    room = await world.room()
    before = await world.say(ALICE, room, "before")
    await world.rooms.join(BOB, room)
    events = (await world.sync(BOB))["rooms"]["join"][room]["timeline"]["events"]
    memberships = {event["event_id"]: event["unsigned"]["membership"] for event in events}
    assert memberships[before] == "leave"
    assert events[-1]["unsigned"]["membership"] == "join"


async def test_an_event_of_another_room_or_that_may_not_be_seen_is_not_found(world: World) -> None:
    room, other = await world.room(), await world.room()
    event_id = await world.say(ALICE, room, "hello")
    for user, where, what in ((ALICE, other, event_id), (CAROL, room, event_id), (ALICE, room, "$no")):
        with pytest.raises(MatrixError) as refusal:
            read(world, user, where, what)
        assert (refusal.value.status, refusal.value.errcode) == (404, "M_NOT_FOUND")
