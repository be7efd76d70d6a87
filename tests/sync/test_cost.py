# SPDX-License-Identifier: Apache-2.0
"""What a message and the answers of /sync cost, counted in pages and SQL statements: time moves with the
machine, these don't.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from minihs.store.reader import Parameters, ReadConnection
from tests.sync.world import ALICE, BOB, World

PAGE_IN_JOURNAL = 4096 + 24


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is read meanwhile, on the loop and in threads."""
    run: list[str] = []
    execute = ReadConnection.execute

    def note(self: ReadConnection, sql: str, parameters: Parameters = (), /) -> sqlite3.Cursor:
        run.append(sql)
        return execute(self, sql, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReadConnection, "execute", note)
        yield run


async def test_a_poll_without_news_asks_next_to_nothing(world: World) -> None:
    room = await world.room(ALICE)
    await world.say(ALICE, room, "hello")
    since = (await world.sync(ALICE))["next_batch"]
    with statements() as run:
        assert (await world.sync(ALICE, since))["rooms"]["join"] == {}
    assert len(run) <= 11, run


async def test_a_long_poll_right_after_an_answer_asks_only_whom_to_listen_to(
    world: World, autojump_clock: MockClock
) -> None:
    await world.room(ALICE)
    since = (await world.sync(ALICE))["next_batch"]
    async with trio.open_nursery() as nursery:
        with statements() as run:
            nursery.start_soon(lambda: world.sync(ALICE, since, timeout_ms=30_000))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(run) == 1, run


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
        with statements() as run:
            answer = await world.sync(BOB, since)
        since = answer["next_batch"]
        assert answer["rooms"]["join"][rooms[0]]["unread_notifications"]["notification_count"] == 4 + number
        assert len(run) <= 30, run


async def test_an_answer_sees_one_state_of_the_database(world: World) -> None:
    room = await world.room(ALICE)
    since = (await world.sync(ALICE))["next_batch"]
    await world.say(ALICE, room, "hello")
    with statements() as run:
        await world.sync(ALICE, since)
    first, last = run.index("BEGIN"), run.index("ROLLBACK")
    assert first < last
    assert all("FROM stream" in each or "to_device" in each for each in run[:first] + run[last + 1 :]), run


async def test_a_first_answer_costs_some_statements_a_room_not_some_an_event(world: World) -> None:
    rooms = [await world.room(ALICE, name=f"Room {number}", topic="Something") for number in range(4)]
    for room in rooms:
        await world.rooms.join(BOB, room)
        for number in range(5):
            await world.say(ALICE, room, f"message {number}")
    with statements() as run:
        answer = await world.sync(BOB, filter={"room": {"timeline": {"limit": 30}}})
    shown = [event for room in answer["rooms"]["join"].values() for event in room["timeline"]["events"]]
    assert len([event for event in shown if "state_key" in event]) > 30
    assert len(run) <= 35 * len(rooms), len(run)


async def test_a_message_writes_few_pages(world: World) -> None:
    room = await world.room(ALICE)

    async def say(number: int) -> None:
        await world.rooms.send(
            ALICE, room, "m.room.message", {"body": "hi"}, device_id="D", txn_id=f"{number}"
        )

    for number in range(20):
        await say(number)
    journal = world.db.path.with_name(world.db.path.name + "-wal")
    before = journal.stat().st_size
    for number in range(20, 40):
        await say(number)
    pages = (journal.stat().st_size - before) / PAGE_IN_JOURNAL / 20
    assert 5 < pages <= 15
