# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from minihs.sync.lazy_members import LazyMembers
from tests.sync.world import ALICE, BOB, CAROL, Json, World, state_of

LAZY: Json = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
REDUNDANT: Json = {
    "room": {
        "state": {"lazy_load_members": True, "include_redundant_members": True},
        "timeline": {"limit": 1},
    }
}


def members(answer: Json, room: str) -> set[str]:
    state = state_of(answer["rooms"]["join"][room]["state"])
    return {key for type, key in state if type == "m.room.member"}


async def three_in_a_room(world: World) -> str:
    room = await world.room(name="Den")
    await world.rooms.join(BOB, room)
    await world.rooms.join(CAROL, room)
    return room


async def test_the_first_sync_has_oneself_and_who_speaks(world: World) -> None:
    room = await three_in_a_room(world)
    await world.say(BOB, room, "hello")
    answer = await world.sync(ALICE, filter=LAZY)
    assert members(answer, room) == {ALICE, BOB}
    assert ("m.room.create", "") in state_of(answer["rooms"]["join"][room]["state"])


async def test_heroes_of_a_nameless_room_are_included(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    await world.say(ALICE, room, "hello")
    answer = await world.sync(ALICE, filter=LAZY)
    assert answer["rooms"]["join"][room]["summary"]["m.heroes"] == [BOB]
    assert members(answer, room) == {ALICE, BOB}


async def test_a_member_is_sent_once_unless_redundant_ones_are_wanted(world: World) -> None:
    room = await three_in_a_room(world)
    await world.say(ALICE, room, "hello")
    answer = await world.sync(ALICE, filter=LAZY)
    for wanted in ({BOB}, set[str]()):
        await world.say(BOB, room, "again")
        answer = await world.sync(ALICE, answer["next_batch"], filter=LAZY)
        assert members(answer, room) == wanted
    await world.say(BOB, room, "and again")
    answer = await world.sync(ALICE, answer["next_batch"], filter=REDUNDANT)
    assert members(answer, room) == {BOB}


async def test_a_member_of_an_answer_that_got_lost_is_sent_again(world: World) -> None:
    room = await three_in_a_room(world)
    await world.say(ALICE, room, "hello")
    first = await world.sync(ALICE, filter=LAZY)
    await world.say(BOB, room, "one")
    lost = await world.sync(ALICE, first["next_batch"], filter=LAZY)
    again = await world.sync(ALICE, first["next_batch"], filter=LAZY)
    assert members(lost, room) == members(again, room) == {BOB}
    await world.say(BOB, room, "two")
    assert members(await world.sync(ALICE, again["next_batch"], filter=LAZY), room) == set()
    assert members(await world.sync(ALICE, first["next_batch"], filter=LAZY), room) == {BOB}


async def test_a_restart_repeats_members_and_loses_none(world: World) -> None:
    room = await three_in_a_room(world)
    await world.say(BOB, room, "one")
    first = await world.sync(ALICE, filter=LAZY)
    world.syncer = world.new_syncer()
    await world.say(BOB, room, "two")
    assert members(await world.sync(ALICE, first["next_batch"], filter=LAZY), room) == {BOB}


async def test_members_who_changed_in_a_gap_are_all_sent(world: World) -> None:
    room = await world.room(name="Den")
    await world.say(ALICE, room, "hello")
    first = await world.sync(ALICE, filter=LAZY)
    await world.rooms.join(BOB, room)
    await world.rooms.join(CAROL, room)
    await world.say(ALICE, room, "the gap ends here")
    answer = await world.sync(ALICE, first["next_batch"], filter=LAZY)
    assert answer["rooms"]["join"][room]["timeline"]["limited"] is True
    assert {BOB, CAROL} <= members(answer, room)


def test_what_is_remembered_is_bounded(monkeypatch) -> None:  # type: ignore[no-untyped-def]  # pytest's fixture
    monkeypatch.setattr("minihs.sync.lazy_members.MAX_DEVICES", 3)
    lazy = LazyMembers()
    for number in range(10):
        delivery = lazy.begin(ALICE, str(number), "")
        delivery.add(1, 2, 3)
        lazy.finish(ALICE, str(number), "", "s1_0", delivery)
    assert not lazy.begin(ALICE, "0", "s1_0").has(1, 2, 3)
    assert lazy.begin(ALICE, "9", "s1_0").has(1, 2, 3)


def test_it_is_bounded_over_all_devices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minihs.sync.lazy_members.MAX_MEMBERS_IN_ALL", 4)
    lazy = LazyMembers()

    def sync(device: str, members: int) -> None:
        delivery = lazy.begin(ALICE, device, "")
        for number in range(members):
            delivery.add(1, number, 3)
        lazy.finish(ALICE, device, "", "s1_0", delivery)

    sync("one", 2)
    sync("two", 2)
    assert lazy.begin(ALICE, "one", "s1_0").has(1, 0, 3)
    sync("three", 1)
    assert not lazy.begin(ALICE, "one", "s1_0").has(1, 0, 3)
    assert lazy.begin(ALICE, "two", "s1_0").has(1, 0, 3)
    sync("four", 5)
    assert lazy.begin(ALICE, "four", "s1_0").has(1, 4, 3), "the last one is served whatever it needs"


def test_of_one_device_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minihs.sync.lazy_members.MAX_MEMBERS", 3)
    monkeypatch.setattr("minihs.sync.lazy_members.MAX_ANSWERS", 2)

    def sent(lazy: LazyMembers, since: str, next_batch: str, count: int, first: int = 0) -> None:
        delivery = lazy.begin(ALICE, "D", since)
        for number in range(first, first + count):
            delivery.add(1, number, 1)
        lazy.finish(ALICE, "D", since, next_batch, delivery)

    lazy = LazyMembers()
    sent(lazy, "", "1", 2)
    sent(lazy, "1", "2", 1, first=2)
    assert lazy.begin(ALICE, "D", "2").has(1, 0, 1)  # three in all
    sent(lazy, "2", "3", 1, first=3)
    assert not lazy.begin(ALICE, "D", "3").has(1, 0, 1)  # one too many: they are sent again

    lazy = LazyMembers()
    for answer in ("a", "b", "c"):
        sent(lazy, "0", answer, 1)
    assert not lazy.begin(ALICE, "D", "a").has(1, 0, 1)  # of three answers under way the first is forgotten
    assert lazy.begin(ALICE, "D", "c").has(1, 0, 1)
