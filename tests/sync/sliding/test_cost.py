# SPDX-License-Identifier: Apache-2.0
"""What an answer of sliding sync costs, counted in SQL statements."""

from __future__ import annotations

from tests.sync.sliding.kit import Connection, rooms, said
from tests.sync.test_cost import statements
from tests.sync.world import ALICE, BOB, Json, World

ALL: Json = {
    "extensions": {
        name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")
    }
}
STATE = [
    ["m.room.encryption", ""],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
    ["m.space.child", "*"],
]


async def test_a_poll_without_news_asks_next_to_nothing(world: World) -> None:
    for _ in range(5):
        await world.room()
    client = Connection(world, ALICE, **rooms(state=STATE), **ALL)
    await client.next()
    await client.next()
    with statements() as run:
        assert (await client.next())["rooms"] == {}
    assert len(run) <= 12, run
    assert not any("memberships" in each for each in run), "the rooms are not even looked at"


async def test_what_is_none_of_the_users_business_costs_one_look_at_the_rooms(world: World) -> None:
    for _ in range(5):
        await world.room()
    client = Connection(world, ALICE, **rooms(state=STATE))
    await client.next()
    await client.next()
    await world.room(BOB)
    with statements() as run:
        assert (await client.next())["rooms"] == {}
    assert len(run) <= 10, run


async def test_a_connection_for_encryption_only_does_not_look_at_rooms(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **ALL)
    await client.next()
    await world.say(ALICE, room, "hello")
    with statements() as run:
        assert (await client.next())["rooms"] == {}
    assert len(run) <= 20, run


async def test_one_message_is_told_in_few_statements_however_many_rooms_there_are(world: World) -> None:
    ids = [await world.room() for _ in range(5)]
    for room in ids:
        await world.rooms.join(BOB, room)
    client = Connection(world, BOB, **rooms(state=STATE), **ALL)
    await client.next()
    for number in range(3):
        await world.say(ALICE, ids[0], str(number))
        with statements() as run:
            told = await client.told()
        assert said(told[ids[0]]) == [str(number)]
    assert len(run) <= 45, run


async def test_a_first_window_costs_a_few_statements_a_room(world: World) -> None:
    for number in range(5):
        await world.room(name=f"Room {number}")
    costs = []
    for last in (0, 4):
        with statements() as run:
            answer = await world.slide(
                ALICE, conn_id=str(last), **rooms(limit=1, state=STATE, last=last), **ALL
            )
        assert len(answer["rooms"]) == last + 1
        costs.append(len(run))
    assert 10 < (costs[1] - costs[0]) / 4 <= 30, run
