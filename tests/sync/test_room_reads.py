# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.sync.filters import ALL, parse_event_filter
from minihs.sync.public_rooms import PublicRooms, options_from
from minihs.sync.room_reads import MemberOptions, RoomReads
from tests.sync.world import ALICE, BOB, CAROL, DAVE, World, bodies


@pytest.fixture
def reads(world: World) -> RoomReads:
    return RoomReads(world.db, world.runtime, world.facts)


def who(user: str) -> Requester:
    return Requester(user, "PHONE", 1)


async def members(reads: RoomReads, user: str, room: str, **options: Any) -> dict[str, str]:
    found = await reads.members(who(user), room, MemberOptions(**options))
    return {event["state_key"]: event["content"]["membership"] for event in found}


async def test_members_by_membership(world: World, reads: RoomReads) -> None:
    room = await world.room()
    await world.rooms.invite(ALICE, room, BOB)
    await world.rooms.ban(ALICE, room, CAROL)
    everybody = {ALICE: "join", BOB: "invite", CAROL: "ban"}
    assert await members(reads, ALICE, room) == everybody
    assert await members(reads, ALICE, room, membership="invite") == {BOB: "invite"}
    assert await members(reads, ALICE, room, not_membership="ban") == {ALICE: "join", BOB: "invite"}
    assert await members(reads, ALICE, room, membership="ban", not_membership="join") == {
        BOB: "invite",
        CAROL: "ban",
    }


async def test_members_at_an_earlier_token_of_either_kind(world: World, reads: RoomReads) -> None:
    room = await world.room()
    token = (await world.sync(ALICE))["next_batch"]
    await world.rooms.join(BOB, room)
    assert await members(reads, ALICE, room, at=token) == {ALICE: "join"}
    context = await reads.context(who(ALICE), room, await world.say(ALICE, room, "here"), 0, ALL)
    await world.rooms.leave(BOB, room)
    assert await members(reads, ALICE, room, at=context["end"]) == {ALICE: "join", BOB: "join"}


async def test_members_of_a_time_that_is_hidden_are_refused(world: World, reads: RoomReads) -> None:
    room = await world.room()
    await world.rooms.send(
        ALICE, room, "m.room.history_visibility", {"history_visibility": "joined"}, state_key=""
    )
    token = (await world.sync(ALICE))["next_batch"]
    await world.rooms.join(BOB, room)
    with pytest.raises(MatrixError) as refusal:
        await members(reads, BOB, room, at=token)
    assert refusal.value.status == 403


async def test_who_left_reads_the_state_of_then(world: World, reads: RoomReads) -> None:
    room = await world.room(name="then")
    await world.rooms.join(BOB, room)
    await world.rooms.leave(BOB, room)
    await world.rooms.send(ALICE, room, "m.room.name", {"name": "now"}, state_key="")
    await world.rooms.join(CAROL, room)
    assert (await reads.state_event(who(BOB), room, "m.room.name", ""))["content"] == {"name": "then"}
    assert (await reads.state_event(who(ALICE), room, "m.room.name", ""))["content"] == {"name": "now"}
    assert CAROL not in await members(reads, BOB, room)
    state = await reads.state(who(BOB), room)
    assert {event["type"] for event in state} >= {"m.room.create", "m.room.name"}
    assert all(event["room_id"] == room for event in state)


async def test_strangers_and_the_merely_invited_read_nothing(world: World, reads: RoomReads) -> None:
    room = await world.room(preset="private_chat")
    await world.rooms.invite(ALICE, room, BOB)
    event_id = await world.say(ALICE, room, "secret")
    for user in (BOB, CAROL):
        for call in (reads.state, reads.joined_members):
            with pytest.raises(MatrixError) as refusal:
                await call(who(user), room)
            assert refusal.value.status == 403
        with pytest.raises(MatrixError) as refusal:
            await reads.state_event(who(user), room, "m.room.create", "")
        assert refusal.value.status == 403
        with pytest.raises(MatrixError) as refusal:
            await reads.context(who(user), room, event_id, 10, ALL)
        assert refusal.value.status == 404
    with pytest.raises(MatrixError) as refusal:
        await reads.state(who(ALICE), "!no:here.test")
    assert refusal.value.status == 403


async def test_state_that_is_not_there_is_not_found(world: World, reads: RoomReads) -> None:
    room = await world.room()
    for type, key in (("m.room.topic", ""), ("m.never.heard.of", "x")):
        with pytest.raises(MatrixError) as refusal:
            await reads.state_event(who(ALICE), room, type, key)
        assert (refusal.value.status, refusal.value.errcode) == (404, "M_NOT_FOUND")


async def test_joined_members_have_their_profiles(world: World, reads: RoomReads) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    await world.rooms.invite(ALICE, room, BOB)
    assert await reads.joined_members(who(ALICE), room) == {ALICE: {"display_name": "alice"}, DAVE: {}}


async def test_context_has_both_sides_and_the_state_at_its_end(world: World, reads: RoomReads) -> None:
    room = await world.room()
    ids = [await world.say(ALICE, room, str(number)) for number in range(9)]
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "later"}, state_key="")
    found = await reads.context(who(ALICE), room, ids[4], 5, ALL)
    assert found["event"]["event_id"] == ids[4]
    assert bodies(found["events_before"]) == ["3", "2"]
    assert bodies(found["events_after"]) == ["5", "6", "7"]
    assert not [event for event in found["state"] if event["type"] == "m.room.topic"]
    lazy = await reads.context(who(ALICE), room, ids[4], 0, parse_event_filter({"lazy_load_members": True}))
    assert lazy["events_before"] == lazy["events_after"] == []
    assert [event["state_key"] for event in lazy["state"] if event["type"] == "m.room.member"] == [ALICE]


async def test_context_hides_what_its_reader_may_not_see(world: World, reads: RoomReads) -> None:
    room = await world.room()
    await world.rooms.send(
        ALICE, room, "m.room.history_visibility", {"history_visibility": "joined"}, state_key=""
    )
    await world.say(ALICE, room, "secret")
    await world.rooms.join(BOB, room)
    event_id = await world.say(ALICE, room, "hello")
    found = await reads.context(who(BOB), room, event_id, 20, ALL)
    assert bodies(found["events_before"]) == []


async def test_the_directory_lists_published_rooms_largest_first(world: World) -> None:
    small = await world.room(visibility="public", name="Small", topic="about cats")
    large = await world.room(visibility="public", name="Large", creation_content={"type": "m.space"})
    await world.rooms.join(BOB, large)
    hidden = await world.room(name="Hidden")
    directory = PublicRooms(world.db)

    async def listed(**options: Any) -> list[str]:
        found = await directory.list(
            options_from(options.get("limit"), options.get("since"), options.get("filter"))
        )
        return [entry["room_id"] for entry in found["chunk"]]

    assert await listed() == [large, small]
    assert await listed(filter={"generic_search_term": "CATS"}) == [small]
    assert await listed(filter={"room_types": ["m.space"]}) == [large]
    assert await listed(filter={"room_types": [None]}) == [small]
    page = await directory.list(options_from(1, None, None))
    assert page["total_room_count_estimate"] == 2
    assert await listed(limit=1, since=page["next_batch"]) == [small]
    entry = page["chunk"][0]
    assert entry == {
        "room_id": large, "name": "Large", "num_joined_members": 2, "room_type": "m.space",
        "join_rule": "public", "world_readable": False, "guest_can_join": False,
    }  # fmt: skip
    assert directory.visibility(hidden) == "private"
    await directory.set_visibility(who(ALICE), hidden, "public")
    assert hidden in await listed()
    for user, room, status in ((BOB, large, 403), (CAROL, hidden, 403), (ALICE, "!no:here.test", 404)):
        with pytest.raises(MatrixError) as refusal:
            await directory.set_visibility(who(user), room, "private")
        assert refusal.value.status == status


@pytest.mark.parametrize(
    "fields",
    [("x", None, None), (True, None, None), (1, 2, None), (1, None, []),
     (1, None, {"generic_search_term": 1}), (1, None, {"room_types": [1]}), (-1, None, None)],
)  # fmt: skip
def test_malformed_directory_requests_are_refused(fields: tuple[Any, Any, Any]) -> None:
    with pytest.raises(MatrixError):
        options_from(*fields)


async def test_aliases_are_for_members(world: World, reads: RoomReads) -> None:
    room = await world.room(room_alias_name="den")
    assert reads.aliases(who(ALICE), room) == ["#den:here.test"]
    with pytest.raises(MatrixError) as refusal:
        reads.aliases(who(CAROL), room)
    assert refusal.value.status == 403
