# SPDX-License-Identifier: Apache-2.0
"""What an answer of /sync costs, counted in SQL statements: time moves with the machine, these don't."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from minihs.store.reader import ReadConnection
from tests.sync.world import ALICE, BOB, World


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """The statements of the loop's reader, as they are run."""
    connection = cast(ReadConnection, world.db.read)._connection
    run: list[str] = []
    connection.set_trace_callback(run.append)
    try:
        yield run
    finally:
        connection.set_trace_callback(None)


async def test_a_poll_without_news_asks_next_to_nothing(world: World) -> None:
    room = await world.room(ALICE)
    await world.say(ALICE, room, "hello")
    since = (await world.sync(ALICE))["next_batch"]
    with statements(world) as run:
        assert (await world.sync(ALICE, since))["rooms"]["join"] == {}
    assert len(run) <= 11, run


async def test_one_message_is_told_in_few_statements_however_many_rooms_and_unread_there_are(
    world: World,
) -> None:
    rooms = [await world.room(ALICE) for _ in range(5)]
    for room in rooms:
        await world.rooms.join(BOB, room)
    since = (await world.sync(BOB))["next_batch"]
    for number in range(3):
        await world.say(ALICE, rooms[0], f"message {number}")
        since = (await world.sync(BOB, since))["next_batch"]
    for number in range(10):
        await world.say(ALICE, rooms[0], f"message {number}")
        with statements(world) as run:
            answer = await world.sync(BOB, since)
        since = answer["next_batch"]
        assert answer["rooms"]["join"][rooms[0]]["unread_notifications"]["notification_count"] == 4 + number
        assert len(run) <= 30, run


async def test_an_answer_sees_one_state_of_the_database(world: World) -> None:
    room = await world.room(ALICE)
    since = (await world.sync(ALICE))["next_batch"]
    await world.say(ALICE, room, "hello")
    with statements(world) as run:
        await world.sync(ALICE, since)
    first, last = run.index("BEGIN"), run.index("ROLLBACK")
    assert first < last
    assert all("FROM stream" in each or "to_device" in each for each in run[:first] + run[last + 1 :]), run
