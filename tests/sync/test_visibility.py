# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from minihs.matrix.errors import MatrixError
from minihs.store import ids, timeline
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent, insert
from minihs.sync import visibility
from minihs.testing.events import RoomFactory
from tests.sync.world import ALICE, BOB, CAROL, DAVE, ERIN, World


async def room_with_past(world: World, setting: str) -> tuple[str, dict[str, str]]:
    """A room in which something was said before Bob was invited, while he was, while he was in, and after he
    left."""
    room = await world.room(
        initial_state=[
            {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": setting}}
        ]
    )
    said = {"before": await world.say(ALICE, room, "before")}
    await world.rooms.invite(ALICE, room, BOB)
    said["invited"] = await world.say(ALICE, room, "invited")
    await world.rooms.join(BOB, room)
    said["joined"] = await world.say(ALICE, room, "joined")
    return room, said


def seen(world: World, user: str, room: str, said: dict[str, str]) -> set[str]:
    nid = world.room_nid(room)
    rows = {name: timeline.by_event_id(world.db.read, nid, event_id) for name, event_id in said.items()}
    found = visibility.visible(
        world.db.read, world.facts, user, [row for row in rows.values() if row is not None]
    )
    return {name for name, row in rows.items() if row is not None and row.nid in found}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("world_readable", {"before", "invited", "joined"}),
        ("shared", {"before", "invited", "joined"}),
        ("invited", {"invited", "joined"}),
        ("joined", {"joined"}),
        ("nonsense", {"before", "invited", "joined"}),
    ],
)
async def test_a_member_sees_what_the_setting_at_the_event_allows(
    world: World, setting: str, expected: set[str]
) -> None:
    room, said = await room_with_past(world, setting)
    assert seen(world, BOB, room, said) == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("world_readable", {"before", "invited", "joined", "after"}),
        ("shared", {"before", "invited", "joined"}),
        ("invited", {"invited", "joined"}),
        ("joined", {"joined"}),
    ],
)
@pytest.mark.parametrize("how", ["leave", "kick", "ban"])
async def test_who_left_sees_what_they_saw_and_nothing_later(
    world: World, setting: str, expected: set[str], how: str
) -> None:
    room, said = await room_with_past(world, setting)
    if how == "leave":
        await world.rooms.leave(BOB, room)
    else:
        await getattr(world.rooms, how)(ALICE, room, BOB)
    said["after"] = await world.say(ALICE, room, "after")
    assert seen(world, BOB, room, said) == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("world_readable", True), ("shared", False), ("invited", False), ("joined", False)],
)
async def test_a_stranger_sees_only_world_readable_events(world: World, setting: str, expected: bool) -> None:
    room, said = await room_with_past(world, setting)
    assert bool(seen(world, CAROL, room, said)) is expected


async def test_the_setting_at_the_event_counts_not_the_present_one(world: World) -> None:
    room, said = await room_with_past(world, "joined")
    await world.rooms.send(
        ALICE, room, "m.room.history_visibility", {"history_visibility": "shared"}, state_key=""
    )
    said["later"] = await world.say(ALICE, room, "later")
    await world.rooms.join(CAROL, room)
    assert seen(world, CAROL, room, said) == {"later"}


async def test_a_change_of_the_setting_is_seen_by_who_sees_it_before_or_after(world: World) -> None:
    room = await world.room()
    events = {
        setting: await world.rooms.send(
            ALICE, room, "m.room.history_visibility", {"history_visibility": setting}, state_key=""
        )
        for setting in ("world_readable", "joined", "invited")
    }
    assert seen(world, CAROL, room, events) == {"world_readable", "joined"}


async def test_rejoining_shows_what_happened_meanwhile_only_if_shared(world: World) -> None:
    for setting, expected in (("shared", {"meanwhile"}), ("joined", set())):
        room, _ = await room_with_past(world, setting)
        await world.rooms.leave(BOB, room)
        said = {"meanwhile": await world.say(ALICE, room, "meanwhile")}
        await world.rooms.join(BOB, room)
        assert seen(world, BOB, room, said) == expected


async def test_what_arrives_from_an_old_fork_after_the_ban_is_not_seen(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    await world.member(DAVE, room, "join")
    fork = world.tips(room)
    await world.rooms.ban(ALICE, room, BOB)
    said = {"fork": await world.hear(DAVE, room, "bob is still in, here", after=fork)}
    assert seen(world, BOB, room, said) == set()
    assert seen(world, ALICE, room, said) == {"fork"}


async def test_ones_own_ban_is_seen(world: World) -> None:
    room = await world.room()
    event_id = await world.rooms.ban(ALICE, room, CAROL)
    assert seen(world, CAROL, room, {"ban": event_id}) == {"ban"}


async def test_a_forgotten_room_is_closed(world: World) -> None:
    room, _ = await room_with_past(world, "shared")
    await world.rooms.leave(BOB, room)
    assert visibility.access(world.db.read, world.facts, BOB, room).joined is False
    await world.rooms.forget(BOB, room)
    with pytest.raises(MatrixError) as refusal:
        visibility.access(world.db.read, world.facts, BOB, room)
    assert refusal.value.status == 403


def shown_to(world: World, host: str, said: dict[str, str]) -> set[str]:
    """What `rooms` is told that a server may see; the same as looking at each event by itself."""
    db = world.db.read
    nids = ids.event_nids(db, said.values())
    found = visibility.HostVisibility(world.facts)(db, host, list(nids.values()))
    rows = list(timeline.rows_of(db, nids.values()).values())
    assert found == visibility.visible_to_host(db, world.facts, host, rows)
    return {name for name, event_id in said.items() if nids[event_id] in found}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("world_readable", {"before", "invited", "joined"}),
        ("shared", {"before", "invited", "joined"}),
        ("invited", {"invited", "joined"}),
        ("joined", {"joined"}),
    ],
)
async def test_a_server_sees_what_one_of_its_users_could(
    world: World, setting: str, expected: set[str]
) -> None:
    room = await world.room(
        initial_state=[
            {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": setting}}
        ]
    )
    said = {"before": await world.say(ALICE, room, "before")}
    await world.receive(ALICE, room, "m.room.member", {"membership": "invite"}, DAVE)
    said["invited"] = await world.say(ALICE, room, "invited")
    await world.member(DAVE, room, "join")
    said["joined"] = await world.say(ALICE, room, "joined")
    assert shown_to(world, "there.test", said) == expected
    assert shown_to(world, "elsewhere.test", said) == expected & WORLD.get(setting, set())
    for name, event_id in said.items():  # a page of its own
        assert shown_to(world, "there.test", {name: event_id}) == expected & {name}


WORLD = {"world_readable": {"before", "invited", "joined"}}


async def test_a_server_whose_user_left_still_sees_what_the_user_saw_of_a_joined_room(world: World) -> None:
    room = await world.room(
        initial_state=[
            {
                "type": "m.room.history_visibility",
                "state_key": "",
                "content": {"history_visibility": "joined"},
            }
        ]
    )
    await world.member(ERIN, room, "join")
    await world.member(DAVE, room, "join")
    said = {"one": await world.say(ALICE, room, "one")}
    await world.member(DAVE, room, "leave")
    await world.member(ERIN, room, "leave")
    said["two"] = await world.say(ALICE, room, "two")
    assert shown_to(world, "there.test", said) == {"one"}


async def test_a_server_sees_a_page_only_as_far_as_its_settings_allow(world: World) -> None:
    """Also if they changed within it, often even; and nothing of which we don't hold the state."""
    room = await world.room()
    await world.member(DAVE, room, "join")
    await world.member(DAVE, room, "leave")
    await world.member(ERIN, room, "join")
    await world.member(ERIN, room, "leave")
    said, expected = {}, set()
    for number in range(12):
        setting = ("world_readable", "shared")[number % 2]
        content = {"history_visibility": setting}
        await world.rooms.send(ALICE, room, "m.room.history_visibility", content, state_key="")
        said[f"{setting}{number}"] = await world.say(ALICE, room, "said")
        if setting == "world_readable":
            expected.add(f"{setting}{number}")
        assert shown_to(world, "there.test", said) == expected
    stray, room_nid = RoomFactory("11", DAVE).create, world.room_nid(room)

    def store(tx: Tx) -> None:
        insert(tx, room_nid, NewEvent(stray, Outcome.ACCEPTED, 1, outlier=True))

    await world.db.write(store)
    await world.member(DAVE, room, "join")
    assert shown_to(world, "there.test", said) == said.keys()
    assert shown_to(world, "there.test", {"stray": stray.event_id}) == set()
    last = list(said)[-1]
    assert shown_to(world, "there.test", {last: said[last], "stray": stray.event_id}) == {last}
