# SPDX-License-Identifier: Apache-2.0
"""Which state comes with a room: names, wildcards, $ME, lazily loaded members, wishes that change."""

from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.errors import MatrixError
from minihs.store import state as state_store
from minihs.sync.sliding import room_state
from minihs.sync.sliding.required_state import MAX_ELEMENTS, StateWish, parse
from tests.sync.sliding.kit import EVERYTHING, LAZY, Connection, rooms, said, state
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World


@pytest.mark.parametrize(
    ("wish", "wanted", "unwanted"),
    [
        ([["a", ""]], [("a", "")], [("a", "b"), ("b", "")]),
        ([["a", "*"]], [("a", ""), ("a", "b")], [("b", "")]),
        ([["*", "x"]], [("a", "x"), ("m.room.member", "x")], [("a", "")]),
        ([["*", "*"]], [("a", "x"), ("m.room.member", "x")], []),
        ([["m.room.member", "$ME"]], [("m.room.member", ALICE)], [("m.room.member", BOB)]),
        (LAZY, [("a", "x"), ("m.room.member", ALICE)], [("m.room.member", BOB)]),
        ([], [], [("a", "")]),
        ({"include": [{}]}, [("a", "x"), ("m.room.member", "x")], []),
        ({"include": [{"type": "a"}, {"state_key": "k"}]}, [("a", "x"), ("b", "k")], [("b", "x")]),
        ({"include": [{}], "exclude": [{"type": "a", "state_key": ""}]}, [("a", "x")], [("a", "")]),
        ({"include": [{}], "lazy_members": True}, [("a", "")], [("m.room.member", ALICE)]),
        ({}, [], [("a", "")]),
    ],
)
def test_what_a_wish_wants(wish: Any, wanted: list[tuple[str, str]], unwanted: list[tuple[str, str]]) -> None:
    parsed = parse(wish, ALICE)
    assert all(parsed.wants(*each) for each in wanted)
    assert not any(parsed.wants(*each) for each in unwanted)


def test_both_forms_of_the_same_wish_are_one() -> None:
    pairs = parse([["a", "*"], ["m.room.member", "$LAZY"]], ALICE)
    assert parse({"include": [{"type": "a"}], "lazy_members": True}, ALICE).key == pairs.key
    assert parse([["m.room.member", "$LAZY"], ["a", "*"]], ALICE).key == pairs.key
    assert StateWish(frozenset({("a", None)})).key != pairs.key
    assert StateWish(frozenset({("a", "")})).key != StateWish(frozenset({("a", None)})).key


@pytest.mark.parametrize(
    ("wish", "errcode"),
    [
        ("all", "M_BAD_JSON"),
        (["a"], "M_BAD_JSON"),
        ([["a"]], "M_BAD_JSON"),
        ([["a", 1]], "M_BAD_JSON"),
        ([["a", "$LAZY"]], "M_INVALID_PARAM"),
        ([["a", "b"]] * (MAX_ELEMENTS + 1), "M_INVALID_PARAM"),
        ({"include": {}}, "M_BAD_JSON"),
        ({"include": ["a"]}, "M_BAD_JSON"),
        ({"include": [{"type": 1}]}, "M_BAD_JSON"),
        ({"exclude": [{}] * (MAX_ELEMENTS + 1)}, "M_INVALID_PARAM"),
        ({"lazy_members": 1}, "M_BAD_JSON"),
    ],
)
def test_wishes_that_are_none(wish: Any, errcode: str) -> None:
    with pytest.raises(MatrixError) as caught:
        parse(wish, ALICE)
    assert caught.value.errcode == errcode
    assert parse([["a", "b"]] * MAX_ELEMENTS, ALICE).wants("a", "b")


async def test_only_what_changed_comes_again(world: World) -> None:
    room = await world.room(name="Den", topic="rest")
    client = Connection(world, ALICE, **rooms(state=[["m.room.name", ""], ["m.room.topic", "*"]]))
    assert state((await client.told())[room]).keys() == {("m.room.name", ""), ("m.room.topic", "")}
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "work"}, state_key="")
    await world.rooms.send(ALICE, room, "m.room.avatar", {"url": "mxc://here.test/a"}, state_key="")
    assert state((await client.told())[room]) == {("m.room.topic", ""): {"topic": "work"}}
    await world.say(ALICE, room, "hello")
    assert "required_state" not in (await client.told())[room]


async def test_state_is_that_at_the_end_of_the_timeline(world: World) -> None:
    room = await world.room(name="old")
    await world.rooms.send(ALICE, room, "m.room.name", {"name": "new"}, state_key="")
    told = (await world.slide(ALICE, **rooms(state=EVERYTHING)))["rooms"][room]
    whole = (await world.sync(ALICE, state_name="state_after"))["rooms"]["join"][room]["state_after"]
    assert state(told)["m.room.name", ""] == {"name": "new"}
    assert state(told).keys() == {(event["type"], event["state_key"]) for event in whole["events"]}


async def test_a_new_wish_is_fulfilled_at_once_and_an_old_one_goes_on(world: World) -> None:
    room = await world.room(name="Den", topic="rest")
    client = Connection(world, ALICE, **rooms(state=[["m.room.name", ""]]))
    await client.next()
    wish: Json = {"timeline_limit": 1, "required_state": [["m.room.topic", ""], ["m.room.create", ""]]}
    told = (await client.told(room_subscriptions={room: wish}))[room]
    assert state(told).keys() == {("m.room.topic", ""), ("m.room.create", "")}
    assert "timeline" not in told
    assert "initial" not in told
    await client.next(room_subscriptions={})
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "work"}, state_key="")
    assert "required_state" not in (await client.told())[room]
    told = (await client.told(room_subscriptions={room: wish}))[room]
    assert state(told) == {("m.room.topic", ""): {"topic": "work"}}, "what it missed, and no more"


async def test_wishes_beyond_those_remembered_start_over(world: World) -> None:
    room = await world.room(name="Den")
    client = Connection(world, ALICE)
    for number in range(room_state.MAX_WISHES + 1):
        wish = {"timeline_limit": 1, "required_state": [["m.room.name", ""], ["n", str(number)]]}
        told = (await client.told(room_subscriptions={room: wish}))[room]
        assert state(told) == {("m.room.name", ""): {"name": "Den"}}
    second: Json = {"timeline_limit": 1, "required_state": [["m.room.name", ""], ["n", "1"]]}
    assert await client.told(room_subscriptions={room: second}) == {}
    first: Json = {"timeline_limit": 1, "required_state": [["m.room.name", ""], ["n", "0"]]}
    assert state((await client.told(room_subscriptions={room: first}))[room])
    many = {
        str(number): {**rooms()["lists"]["all"], "required_state": [["n", str(number)]]}
        for number in range(room_state.MAX_WISHES + 3)
    }
    await client.next(lists=many)
    assert await client.told() == {}, "what is asked for together is remembered together"


async def test_lazily_loaded_members(world: World) -> None:
    room = await world.room()
    for user in (BOB, CAROL):
        await world.rooms.join(user, room)
    await world.say(BOB, room, "hello")
    client = Connection(world, ALICE, **rooms(limit=1, state=LAZY))

    def members(told: Json) -> set[str]:
        return {key for type, key in state(told) if type == "m.room.member"}

    told = (await client.told())[room]
    assert members(told) == {ALICE, BOB}
    assert ("m.room.create", "") in state(told)
    await world.say(BOB, room, "again")
    assert members((await client.told())[room]) == set(), "it has him"
    await world.say(CAROL, room, "me too")
    assert members((await client.told())[room]) == {CAROL}
    await world.member(DAVE, room, "join")
    told = (await client.told())[room]
    assert members(told) == {DAVE}
    fresh = (await world.slide(ALICE, conn_id="new", **rooms(limit=1, state=LAZY)))["rooms"][room]
    assert members(fresh) == {ALICE, DAVE}


async def test_changes_of_members_come_unless_there_is_a_gap(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms(limit=2, state=LAZY))
    await client.next()
    await world.rooms.join(BOB, room)
    await world.rooms.leave(BOB, room)
    assert state((await client.told())[room]) == {("m.room.member", BOB): {"membership": "leave"}}
    await world.rooms.join(BOB, room)
    for number in range(2):
        await world.say(ALICE, room, str(number))
    told = (await client.told())[room]
    assert told["limited"] is True
    assert ("m.room.member", BOB) not in state(told)
    await world.say(BOB, room, "here")
    told = (await client.told())[room]
    assert state(told)["m.room.member", BOB]["membership"] == "join"


async def test_members_of_a_lost_answer_come_again(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    client = Connection(world, ALICE, **rooms(limit=1, state=[["m.room.member", "$LAZY"]]))
    await world.say(ALICE, room, "first")
    await client.next()
    old = client.pos
    await world.say(BOB, room, "hello")
    assert ("m.room.member", BOB) in state((await client.told())[room])
    client.pos = old
    assert ("m.room.member", BOB) in state((await client.told())[room])


async def test_the_first_window_does_not_read_whole_states(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await world.room(name="Den")
    await world.rooms.send(ALICE, room, "m.space.child", {"via": ["here.test"]}, state_key="!a:here.test")
    wanted = [
        ["m.room.name", ""],
        ["m.space.child", "*"],
        ["m.room.member", "$LAZY"],
        ["m.room.member", "$ME"],
    ]

    def refuse(*args: object) -> None:
        raise AssertionError("the whole state is read")

    monkeypatch.setattr(state_store, "read_group", refuse)
    told = (await world.slide(ALICE, **rooms(limit=1, state=wanted)))["rooms"][room]
    assert state(told).keys() == {
        ("m.room.name", ""), ("m.space.child", "!a:here.test"), ("m.room.member", ALICE),
    }  # fmt: skip


async def test_types_with_very_many_keys_are_read_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, limit = await world.room(), 3
    monkeypatch.setattr(room_state, "MAX_KEYS_OF_TYPE", limit)
    for number in range(limit + 1):
        await world.rooms.send(ALICE, room, "m.space.child", {"n": number}, state_key=str(number))
    told = (await world.slide(ALICE, **rooms(state=[["m.space.child", "*"]])))["rooms"][room]
    assert len(state(told)) == limit + 1


async def test_state_that_is_gone_is_named_in_the_form_of_the_msc(world: World) -> None:
    room = await world.room(power_level_content_override={"users": {ALICE: 100, DAVE: 50}})
    await world.member(DAVE, room, "join")
    client = Connection(world, ALICE, stable=True, **rooms(state=EVERYTHING))
    old = Connection(world, ALICE, conn_id="old", **rooms(state=EVERYTHING))
    before = world.tips(room)
    await world.receive(DAVE, room, "m.room.topic", {"topic": "mine"}, "")
    for each in (client, old):
        assert ("m.room.topic", "") in state((await each.told())[room])
    # On a fork of before, Dave loses his power and is banned: what he set is not allowed any more.
    await world.receive(
        ALICE, room, "m.room.power_levels", {"users": {ALICE: 100}, "state_default": 50}, "", after=before
    )
    await world.say(ALICE, room, "merged")
    told = (await client.told())[room]
    assert said(told) == ["merged"]
    stubs = [event for event in told["required_state"] if "content" not in event]
    assert stubs == [{"type": "m.room.topic", "state_key": ""}]
    assert all("content" in event for event in (await old.told())[room]["required_state"])


async def test_a_room_that_comes_whole_again_brings_its_members_again(world: World) -> None:
    room = await world.room()
    for user in (BOB, CAROL):
        await world.rooms.join(user, room)
    client = Connection(world, BOB, **rooms(limit=1, state=[["m.room.member", "$LAZY"]]))
    await world.say(CAROL, room, "hello")
    assert ("m.room.member", CAROL) in state((await client.told())[room])
    await world.rooms.leave(BOB, room)
    await world.rooms.join(BOB, room)
    told = (await client.told())[room]
    assert told["initial"] is True
    assert ("m.room.member", CAROL) not in state(told)
    await world.say(CAROL, room, "again")
    assert ("m.room.member", CAROL) in state((await client.told())[room])
