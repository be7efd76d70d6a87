# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a connection, for how long, and how much of it."""

from __future__ import annotations

import sqlite3

import pytest

from minihs.matrix.errors import MatrixError
from minihs.store import devices, sliding, sync_rooms
from minihs.store.sliding import MAX_CONNECTIONS
from minihs.sync.sliding import connections
from minihs.sync.sliding.connections import MAX_ANSWERS, SAVE_AFTER_MS
from tests.sync.sliding.kit import LAZY, Connection, put, rooms, said, state
from tests.sync.world import ALICE, BOB, World


def saved(world: World, conn_id: str = "") -> sliding.SavedConnection | None:
    return sliding.load(world.db.read, ALICE, "PHONE", conn_id)


async def is_unknown(client: Connection) -> bool:
    try:
        await client.next()
    except MatrixError as error:
        return (error.status, error.errcode) == (400, "M_UNKNOWN_POS")
    return False


async def test_a_connection_outlives_a_restart(world: World) -> None:
    room, other = await world.room(name="Den"), await world.room()
    client = Connection(world, ALICE, **rooms(state=LAZY))
    await client.next()
    await client.next()
    await world.say(ALICE, room, "meanwhile")
    world.sliding = world.new_sliding()
    told = await client.told()
    assert list(told) == [room]
    assert said(told[room]) == ["meanwhile"]
    assert "initial" not in told[room]
    assert ("m.room.name", "") not in state(told[room])
    assert other not in told


async def test_rooms_with_something_told_since_it_was_saved_come_whole_again(world: World) -> None:
    room, late, quiet = await world.room(), await world.room(), await world.room()
    client = Connection(world, ALICE, **rooms(last=0))
    await client.next()
    await client.next()
    await world.say(ALICE, late, "one")
    await world.say(ALICE, room, "two")
    await client.next(**rooms())
    await client.next()
    await world.say(ALICE, room, "three")
    world.sliding = world.new_sliding()
    told = await client.told()
    assert said(told[room]) == ["two", "three"]
    assert told[room]["initial"] is True
    assert told[room]["num_live"] == 1, "what was told before does not ring again"
    assert said(told[late]) == ["one"]
    assert quiet not in told, "that is as it was when the connection was saved"
    assert await client.told() == {}


async def test_a_room_that_may_have_been_told_of_is_not_left_unnoticed(world: World) -> None:
    room, other = await world.room(), await world.room()
    client = Connection(world, ALICE, **rooms(last=0))
    await client.next()
    assert list(await client.told(**rooms())) == [room], "this answer is not saved"
    world.sliding = world.new_sliding()
    await world.rooms.leave(ALICE, room)
    told = (await client.told())[room]
    assert told["timeline"][-1]["content"]["membership"] == "leave"
    assert other not in await client.told()


async def test_an_invite_that_may_have_been_told_of_does_not_stay(world: World) -> None:
    await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    room = await world.room(BOB, preset="private_chat", invite=[ALICE])
    assert "invite_state" in (await client.told())[room], "this answer is not saved"
    world.sliding = world.new_sliding()
    await world.rooms.leave(ALICE, room)
    told = (await client.told())[room]
    assert told["timeline"][-1]["content"]["membership"] == "leave"


async def test_flags_that_may_have_been_told_come_again(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    await client.next()
    await put(world, ALICE, "m.direct", {BOB: [room]})
    assert (await client.told())[room]["is_dm"] is True
    world.sliding = world.new_sliding()
    await put(world, ALICE, "m.direct", {})
    assert (await client.told())[room]["is_dm"] is False


async def test_it_is_saved_once_a_minute_and_only_after_something_was_delivered(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    assert saved(world) is None, "the client may not have it"
    await client.next()
    first = saved(world)
    assert first is not None
    await world.say(ALICE, room, "hello")
    await client.next()
    await client.next()
    assert saved(world) == first, "too soon"
    world.clock.ms += SAVE_AFTER_MS
    await client.next()
    second = saved(world)
    assert second is not None
    assert second.pos > first.pos
    world.clock.ms += SAVE_AFTER_MS
    await world.rooms.create(BOB, {})  # moves the position, but is no news for her
    await client.next()
    await client.next()
    assert saved(world) == second, "nothing was delivered"


async def test_a_position_from_before_what_was_saved_is_unknown(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    old = client.pos
    await world.say(ALICE, room, "hello")
    await client.next()
    await client.next()
    world.sliding = world.new_sliding()
    client.pos = old
    assert not await is_unknown(client), "as far as it was saved"
    world.clock.ms += SAVE_AFTER_MS
    for number in range(2):
        await world.say(ALICE, room, str(number))
        await client.next()
    world.sliding = world.new_sliding()
    client.pos = old
    assert await is_unknown(client)


async def test_one_that_was_started_anew_has_nothing_to_do_with_the_old_one(world: World) -> None:
    room = await world.room()
    old, new = Connection(world, ALICE, **rooms()), Connection(world, ALICE, **rooms())
    await old.next()
    await old.next()
    assert list(await new.told()) == [room]
    await new.next()
    assert await is_unknown(old)
    assert await new.told() == {}


async def test_a_connection_more_than_allowed_ends_the_oldest(world: World) -> None:
    await world.room()
    clients = [Connection(world, ALICE, conn_id=str(number), **rooms()) for number in range(MAX_CONNECTIONS)]
    for client in clients:
        await client.next()
        await client.next()
    one_more = Connection(world, ALICE, conn_id="one more", **rooms())
    await one_more.next()
    await one_more.next()
    assert await is_unknown(clients[0])
    assert not await is_unknown(clients[1])
    assert not await is_unknown(one_more)
    elsewhere = Connection(world, BOB, conn_id="1", **rooms())
    await elsewhere.next()
    assert not await is_unknown(elsewhere)


@pytest.mark.parametrize(("bound", "limit"), [("MAX_IN_MEMORY", 2), ("MAX_ROOMS_IN_MEMORY", 4)])
async def test_connections_beyond_those_kept_in_memory_are_read_from_disk(
    world: World, monkeypatch: pytest.MonkeyPatch, bound: str, limit: int
) -> None:
    monkeypatch.setattr(connections, bound, limit)
    room = await world.room()
    clients = [Connection(world, ALICE, conn_id=str(number), **rooms()) for number in range(3)]
    for client in clients:
        await client.next()
        await client.next()
    await world.say(ALICE, room, "hello")
    for client in clients:
        told = await client.told()
        assert said(told[room]) == ["hello"]
        assert "initial" not in told[room]
    kept = world.sliding._connections._kept
    assert len(kept) == 2
    assert sum(each.size for each in kept.values()) == 4, "each has the room, and an answer about it"


async def test_answers_beyond_those_kept_are_unknown(world: World) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    start, answers = client.pos, []
    for number in range(MAX_ANSWERS + 1):
        await world.say(ALICE, room, str(number))
        client.pos = start
        await client.next()
        answers.append(client.pos)
    client.pos = answers[0]
    assert await is_unknown(client)
    client.pos = answers[1]
    assert said((await client.told())[room])[0] == "2"


async def test_a_device_that_is_gone_leaves_nothing(world: World) -> None:
    await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    await client.next()
    assert saved(world) is not None
    await world.db.write(lambda tx: devices.delete(tx, ALICE, "PHONE"))
    assert saved(world) is None
    await world.db.write(
        lambda tx: sliding.save(tx, ALICE, "PHONE", "", sliding.SavedConnection(1, 1, 1, b""), now=0)
    )
    assert saved(world) is None


async def test_positions_from_a_future_that_a_restored_backup_does_not_know(world: World) -> None:
    await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()
    pos = sync_rooms.current_pos(world.db.read)
    client.pos = client.pos.replace(f"-s{pos}_", f"-s{pos + 1}_")
    assert await is_unknown(client)


async def test_a_full_disk_does_not_keep_clients_from_reading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await world.room()
    client = Connection(world, ALICE, **rooms())
    await client.next()

    def refuse(*args: object, **options: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(sliding, "save", refuse)
        await world.say(BOB, await world.room(BOB), "elsewhere")
        assert await client.told() == {}
    assert saved(world) is None
    world.clock.ms += SAVE_AFTER_MS
    await world.say(ALICE, room, "hello")
    await client.next()
    assert saved(world) is not None
