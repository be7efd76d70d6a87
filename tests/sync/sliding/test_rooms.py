# SPDX-License-Identifier: Apache-2.0
"""Rooms in lists and subscriptions, and what is told of each."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from minihs.store import room_activity
from minihs.sync.sliding import syncer
from minihs.sync.sliding.syncer import MAX_ROOMS_ON_LOOP
from tests.sync.sliding.kit import Connection, put, rooms, said, state
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World


async def test_the_first_answer_has_the_window_of_each_list(world: World) -> None:
    ids = [await world.room(name=f"Room {number}") for number in range(3)]
    await world.say(ALICE, ids[0], "the newest")
    answer = await world.slide(ALICE, **rooms(limit=1, last=1))
    assert answer["lists"] == {"all": {"count": 3}}
    assert list(answer["rooms"]) == [ids[0], ids[2]], "the two with the newest events, newest first"
    room = answer["rooms"][ids[0]]
    assert said(room) == ["the newest"]
    assert room["initial"] is True
    assert room["limited"] is True
    assert room["num_live"] == 0
    assert room["name"] == "Room 0"
    assert (room["joined_count"], room["invited_count"]) == (1, 0)
    assert "heroes" not in room
    assert "is_dm" not in room
    assert "required_state" not in room


async def test_the_next_has_only_what_is_new(world: World) -> None:
    room, other = await world.room(name="Den"), await world.room()
    client = Connection(world, ALICE, **rooms())
    assert set(await client.told()) == {room, other}
    assert await client.told() == {}
    await world.say(ALICE, room, "news")
    told = await client.told()
    assert list(told) == [room]
    assert said(told[room]) == ["news"]
    assert told[room]["num_live"] == 1
    assert told[room]["limited"] is False
    assert not told[room].keys() & {"initial", "name", "joined_count", "heroes", "required_state"}


async def test_a_room_that_comes_into_the_window_goes_on_from_where_it_was_left(world: World) -> None:
    first, second = await world.room(), await world.room()
    client = Connection(world, ALICE, **rooms(last=0))
    assert list(await client.told()) == [second]
    await world.say(ALICE, first, "one")
    told = await client.told()
    assert told[first]["initial"] is True
    assert told[first]["num_live"] == 1
    await world.say(ALICE, second, "two")
    await world.say(ALICE, first, "three")
    assert said((await client.told())[first]) == ["three"]
    told = await client.told(**rooms(last=1))
    assert list(told) == [second]
    assert said(told[second]) == ["two"]
    assert "initial" not in told[second]
    assert told[second]["num_live"] == 0, "it came before the position that the client is at"


async def test_a_gap_is_limited(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms(limit=2, state=[["m.room.topic", ""]]))
    await client.next()
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "new"}, state_key="")
    for number in range(3):
        await world.say(ALICE, room, str(number))
    told = (await client.told())[room]
    assert said(told) == ["1", "2"]
    assert told["limited"] is True
    assert told["num_live"] == 2
    assert state(told) == {("m.room.topic", ""): {"topic": "new"}}
    page = await world.sync(ALICE, filter={"room": {"timeline": {"limit": 2}}})
    assert told["prev_batch"] == page["rooms"]["join"][room]["timeline"]["prev_batch"]


async def test_a_repeated_position_gets_the_same_again_and_an_older_one_nothing(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    await world.say(ALICE, room, "lost on its way")
    old = client.pos
    await client.next()
    again = Connection(world, ALICE, **rooms())
    again.pos = old
    assert said((await again.told())[room]) == ["lost on its way"]
    assert await again.told() == {}
    with pytest.raises(Exception, match="M_UNKNOWN_POS"):
        await world.slide(ALICE, old, **rooms())
    with pytest.raises(Exception, match="M_UNKNOWN_POS"):
        await world.slide(ALICE, client.pos, **rooms())


async def test_positions_are_for_the_device_and_the_connection_that_they_were_given_to(world: World) -> None:
    await world.room()
    pos = (await world.slide(ALICE, **rooms()))["pos"]
    for options in ({"device": "LAPTOP"}, {"conn_id": "other"}):
        with pytest.raises(Exception, match="M_UNKNOWN_POS"):
            await world.slide(ALICE, pos, **rooms(), **options)
    with pytest.raises(Exception, match="M_UNKNOWN_POS"):
        await world.slide(BOB, pos, **rooms())
    for bad in ("s5_0", "c1-1-s1_1", "c1-1-s99999999999999_1", "x", pos + "0"):
        with pytest.raises(Exception, match="M_UNKNOWN_POS"):
            await world.slide(ALICE, bad, **rooms())
    assert (await world.slide(ALICE, pos, **rooms()))["rooms"] == {}


async def test_two_connections_of_a_device_go_their_own_ways(world: World) -> None:
    room = await world.room()
    one = Connection(world, ALICE, conn_id="one", **rooms())
    two = Connection(world, ALICE, conn_id="two", **rooms())
    assert (await one.told()).keys() == (await two.told()).keys() == {room}
    await world.say(ALICE, room, "hello")
    assert said((await one.told())[room]) == ["hello"]
    assert said((await two.told())[room]) == ["hello"]


async def test_a_larger_timeline_limit_sends_what_was_there_before(world: World) -> None:
    room = await world.room()
    for number in range(5):
        await world.say(ALICE, room, str(number))
    client = Connection(world, ALICE, **rooms(limit=1))
    assert said((await client.told())[room]) == ["4"]
    told = (await client.told(room_subscriptions={room: {"timeline_limit": 3}}))[room]
    assert said(told) == ["2", "3", "4"]
    assert told["unstable_expanded_timeline"] is True
    assert told["limited"] is True
    assert told["num_live"] == 0
    assert "initial" not in told
    assert await client.told(room_subscriptions={}) == {}
    assert await client.told(room_subscriptions={room: {"timeline_limit": 3}}) == {}, "it has those"
    await world.say(ALICE, room, "5")
    assert said((await client.told())[room]) == ["5"]


async def test_after_a_gap_a_larger_timeline_limit_counts_anew(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms(limit=20))
    await client.next()
    for number in range(4):
        await world.say(ALICE, room, str(number))
    assert said((await client.told(**rooms(limit=1)))[room]) == ["3"]
    assert said((await client.told(**rooms(limit=3)))[room]) == ["1", "2", "3"]


async def test_more_than_one_rule_adds_up(world: World) -> None:
    room = await world.room(name="Den", topic="rest")
    for number in range(3):
        await world.say(ALICE, room, str(number))
    body = rooms(limit=1, state=[["m.room.name", ""]])
    body["room_subscriptions"] = {room: {"timeline_limit": 2, "required_state": [["m.room.topic", ""]]}}
    told = (await world.slide(ALICE, **body))["rooms"][room]
    assert said(told) == ["1", "2"]
    assert state(told).keys() == {("m.room.name", ""), ("m.room.topic", "")}


async def test_subscriptions_work_without_lists_and_pass_over_what_is_not_ones_own(world: World) -> None:
    room, alien = await world.room(BOB), await world.room(CAROL)
    wish: Json = {"timeline_limit": 1}
    wanted = {room: wish, alien: wish, "!nowhere:here.test": wish}
    assert (await world.slide(ALICE, room_subscriptions=wanted))["rooms"] == {}
    answer = await world.slide(BOB, room_subscriptions=wanted)
    assert list(answer["rooms"]) == [room]
    assert answer["lists"] == {}


async def test_names_avatars_heroes_and_counts_come_when_they_change(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    told = (await client.told())[room]
    assert "name" not in told
    assert told["heroes"] == []
    await world.rooms.join(BOB, room)
    told = (await client.told())[room]
    assert told["joined_count"] == 2
    assert told["heroes"] == [{"user_id": BOB, "displayname": "bob"}]
    await world.rooms.send(ALICE, room, "m.room.avatar", {"url": "mxc://here.test/a"}, state_key="")
    told = (await client.told())[room]
    assert told["avatar"] == "mxc://here.test/a"
    assert not told.keys() & {"name", "heroes", "joined_count"}
    await world.rooms.send(ALICE, room, "m.room.name", {"name": "Den"}, state_key="")
    told = (await client.told())[room]
    assert told["name"] == "Den"
    assert "heroes" not in told
    await world.rooms.send(ALICE, room, "m.room.name", {}, state_key="")
    told = (await client.told())[room]
    assert told["name"] is None
    assert [hero["user_id"] for hero in told["heroes"]] == [BOB]


async def test_only_some_events_bump_a_room(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    first = (await client.told())[room]["bump_stamp"]
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "t"}, state_key="")
    assert "bump_stamp" not in (await client.told())[room]
    await world.say(ALICE, room, "hello")
    assert (await client.told())[room]["bump_stamp"] > first
    again = (await world.slide(ALICE, conn_id="again", **rooms()))["rooms"][room]
    assert again["bump_stamp"] > first


async def test_activity_is_looked_for_among_the_newest_events_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_activity, "MAX_LOOKED_AT", 2)
    room = await world.room()
    joined = (await world.slide(ALICE, **rooms()))["rooms"][room]["bump_stamp"]
    await world.say(ALICE, room, "hello")
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "1"}, state_key="")
    said_at = (await world.slide(ALICE, **rooms()))["rooms"][room]["bump_stamp"]
    assert said_at > joined
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "2"}, state_key="")
    assert (await world.slide(ALICE, **rooms()))["rooms"][room]["bump_stamp"] == joined


async def test_an_answer_about_many_rooms_is_built_in_a_thread(world: World, scans: list[object]) -> None:
    ids = [await world.room() for _ in range(MAX_ROOMS_ON_LOOP + 1)]
    client = Connection(world, ALICE, **rooms())
    await client.next()
    for count, expected in ((MAX_ROOMS_ON_LOOP, 0), (MAX_ROOMS_ON_LOOP + 1, 1)):
        scans.clear()
        for room in ids[:count]:
            await world.say(ALICE, room, "hello")
        assert len(await client.told()) == count
        assert len(scans) == expected


async def test_who_was_away_for_long_is_answered_from_a_thread(
    world: World, scans: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Connection(world, ALICE, **rooms())
    await client.next()
    room = await world.room()
    monkeypatch.setattr(syncer, "LONG_ABSENCE", 1)
    scans.clear()
    assert list(await client.told()) == [room]
    assert len(scans) == 1


async def test_counts_of_what_is_unread_come_and_go_with_receipts(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    client = Connection(world, BOB, **rooms())
    await client.next()
    event = await world.say(ALICE, room, "hello bob")
    told = (await client.told())[room]
    assert (told["notification_count"], told["highlight_count"]) == (1, 0)
    await world.receipts.set_markers(BOB, room, {"m.read": event})
    told = await client.told()
    assert told[room]["notification_count"] == 0
    assert "timeline" not in told[room]
    await world.receipts.set_markers(ALICE, room, {"m.read": event})
    assert await client.told() == {}


async def test_an_invite_comes_stripped_and_its_acceptance_whole(world: World) -> None:
    room = await world.room(name="Den", preset="private_chat")
    client = Connection(world, BOB, **rooms(state=[["m.room.name", ""]]))
    assert await client.told() == {}
    await world.rooms.invite(ALICE, room, BOB)
    told = (await client.told())[room]
    assert told["initial"] is True
    assert "timeline" not in told
    assert "joined_count" not in told
    shown = {(event["type"], event["state_key"]): event for event in told["invite_state"]}
    assert shown["m.room.name", ""]["content"] == {"name": "Den"}
    assert shown["m.room.member", BOB]["content"]["membership"] == "invite"
    assert all(event.keys() == {"type", "state_key", "sender", "content"} for event in shown.values())
    assert await client.told() == {}
    await world.rooms.join(BOB, room)
    told = (await client.told())[room]
    assert told["initial"] is True
    assert "invite_state" not in told
    assert state(told) == {("m.room.name", ""): {"name": "Den"}}


async def test_a_rejected_invite_tells_the_leave_and_nothing_of_the_room(world: World) -> None:
    room = await world.room(preset="private_chat")
    client = Connection(world, BOB, **rooms(state=[["m.room.member", "$ME"], ["m.room.create", ""]]))
    await world.rooms.invite(ALICE, room, BOB)
    await client.next()
    await world.rooms.leave(BOB, room)
    told = (await client.told())[room]
    assert [event["content"]["membership"] for event in told["timeline"]] == ["leave"]
    assert state(told) == {("m.room.member", BOB): {"membership": "leave"}}
    assert await client.told() == {}
    assert await Connection(world, BOB, conn_id="new", **rooms()).told() == {}


async def test_invites_of_ignored_users_and_blocked_invites_are_withheld(world: World) -> None:
    room = await world.room(preset="private_chat", invite=[BOB])
    client = Connection(world, BOB, room_subscriptions={room: {"timeline_limit": 1}}, **rooms())
    await put(world, BOB, "m.ignored_user_list", {"ignored_users": {ALICE: {}}})
    answer = await client.next()
    assert answer["rooms"] == {}
    assert answer["lists"]["all"]["count"] == 0
    await put(world, BOB, "m.ignored_user_list", {"ignored_users": {}})
    await put(world, BOB, "m.invite_permission_config", {"default_action": "block"})
    assert await client.told() == {}
    await put(world, BOB, "m.invite_permission_config", {})
    assert list(await client.told()) == [room]


async def test_ignored_users_are_not_heard(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    client = Connection(world, BOB, **rooms())
    await client.next()
    await put(world, BOB, "m.ignored_user_list", {"ignored_users": {ALICE: {}}})
    await world.say(ALICE, room, "unheard")
    assert await client.told() == {}
    await world.say(BOB, room, "mine")
    assert said((await client.told())[room]) == ["mine"]


async def test_a_room_that_one_leaves_is_told_up_to_there(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    client = Connection(world, BOB, **rooms(state=[["m.room.member", "$ME"]]))
    await client.next()
    await world.say(ALICE, room, "before")
    await world.rooms.leave(BOB, room)
    await world.say(ALICE, room, "after")
    told = (await client.told())[room]
    assert said(told) == ["before"]
    assert state(told)["m.room.member", BOB]["membership"] == "leave"
    assert not told.keys() & {"joined_count", "invited_count", "heroes", "notification_count"}
    assert await client.told() == {}
    fresh = await world.slide(BOB, conn_id="new", **rooms())
    assert fresh["rooms"] == {}
    assert fresh["lists"]["all"]["count"] == 0
    subscribed = await world.slide(BOB, conn_id="new", room_subscriptions={room: {"timeline_limit": 9}})
    assert said(subscribed["rooms"][room]) == ["before"], "what one may still read can be asked for"
    await world.rooms.join(BOB, room)
    told = (await client.told())[room]
    assert told["initial"] is True


async def test_kicks_and_bans_are_always_told(world: World) -> None:
    kicked, banned, stranger = [await world.room() for _ in range(3)]
    for room in (kicked, banned):
        await world.rooms.join(BOB, room)
    await world.rooms.kick(ALICE, kicked, BOB)
    await world.rooms.ban(ALICE, banned, BOB)
    await world.rooms.ban(ALICE, stranger, BOB)
    told = await world.slide(BOB, **rooms(state=[["m.room.member", "$ME"]]))
    assert set(told["rooms"]) == {kicked, banned}
    assert told["lists"]["all"]["count"] == 2
    assert state(told["rooms"][kicked])["m.room.member", BOB]["membership"] == "leave"
    assert state(told["rooms"][banned])["m.room.member", BOB]["membership"] == "ban"


async def test_the_direct_flag_comes_when_it_changes(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    assert "is_dm" not in (await client.told())[room]
    await put(world, ALICE, "m.direct", {BOB: [room]})
    assert (await client.told())[room]["is_dm"] is True
    assert (await world.slide(ALICE, conn_id="new", **rooms()))["rooms"][room]["is_dm"] is True
    await put(world, ALICE, "m.direct", {})
    assert (await client.told())[room]["is_dm"] is False


async def test_the_names_of_the_msc_s_text(world: World) -> None:
    room = await world.room(preset="private_chat", invite=[BOB])
    wish: Json = {"timeline_limit": 1, "required_state": {"include": [{"type": "m.room.create"}]}}
    client = Connection(world, BOB, stable=True, lists={"all": {"range": [0, 9], **wish}})
    told = (await client.told())[room]
    assert "stripped_state" in told
    assert "invite_state" not in told
    assert (told["membership"], told["lists"]) == ("invite", ["all"])
    await world.rooms.join(BOB, room)
    told = (await client.told())[room]
    assert told["membership"] == "join"
    assert state(told).keys() == {("m.room.create", "")}
    told = (await client.told(lists={"all": {"range": [0, 9], **wish, "timeline_limit": 3}}))[room]
    assert told["expanded_timeline"] is True
    assert (
        "lists" not in (await world.slide(BOB, stable=True, room_subscriptions={room: wish}))["rooms"][room]
    )


async def test_a_waiting_client_is_told_at_once(world: World, autojump_clock: MockClock) -> None:
    room = await world.room()
    client = Connection(world, ALICE, timeout=30_000, **rooms())
    await client.next()
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            await trio.sleep(5)
            await world.say(ALICE, room, "hello")

        nursery.start_soon(speak)
        assert said((await client.told())[room]) == ["hello"]
        assert trio.current_time() < 6
    start = trio.current_time()
    assert await client.told() == {}
    assert trio.current_time() - start == pytest.approx(30)


async def test_a_poll_that_is_given_up_loses_nothing(world: World, autojump_clock: MockClock) -> None:
    room = await world.room()
    client = Connection(world, ALICE, timeout=30_000, **rooms())
    await client.next()
    with trio.move_on_after(1):
        await client.next()
    assert len(world.notifier) == 0, "nobody waits any more"
    await world.say(ALICE, room, "hello")
    assert said((await client.told())[room]) == ["hello"]


async def test_a_poll_that_was_overtaken_does_not_count(world: World, autojump_clock: MockClock) -> None:
    room = await world.room()
    client = Connection(world, ALICE, timeout=30_000, **rooms())
    await client.next()
    old = Connection(world, ALICE, timeout=30_000, **rooms())
    old.pos = client.pos
    async with trio.open_nursery() as nursery:
        nursery.start_soon(old.next)
        await trio.testing.wait_all_tasks_blocked()
        await client.next(room_subscriptions={room: {"timeline_limit": 20, "required_state": [["a", ""]]}})
        await client.next(timeout=0)
        await world.say(ALICE, room, "hello")
    assert said((await client.told())[room]) == ["hello"]
    with pytest.raises(Exception, match="M_UNKNOWN_POS"):
        await old.next()


async def test_events_of_other_servers_come_as_well(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    client = Connection(world, ALICE, **rooms())
    await client.next()
    await world.hear(DAVE, room, "from afar")
    assert said((await client.told())[room]) == ["from afar"]
