# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.store import account_data
from minihs.sync.by_time import ByTime
from minihs.sync.ports import NoHistory
from tests.sync.world import ALICE, BOB, CAROL, World


async def closest(world: World, user: str, room: str, ts: int, *, forward: bool) -> tuple[str, int]:
    by_time = ByTime(world.db, world.facts, NoHistory())
    answer = await by_time.closest(Requester(user, "PHONE", 1), room, ts, forward=forward)
    return answer["event_id"], answer["origin_server_ts"]


async def hours(world: World, room: str, count: int) -> list[tuple[str, int]]:
    """(event id, time) of messages an hour apart."""
    said = []
    for number in range(count):
        world.clock.ms += 3600_000
        event_id = await world.say(ALICE, room, str(number))
        stored = world.rooms.parts.graph.event(event_id)
        assert stored is not None
        said.append((event_id, stored.origin_server_ts))
    return said


async def missing(world: World, user: str, room: str, ts: int, *, forward: bool) -> str:
    with pytest.raises(MatrixError) as refusal:
        await closest(world, user, room, ts, forward=forward)
    return refusal.value.errcode


async def test_the_closest_event_in_either_direction(world: World) -> None:
    room = await world.room()
    said = await hours(world, room, 3)
    (_, first_ts), (_, middle_ts), (_, last_ts) = said
    assert await closest(world, ALICE, room, middle_ts, forward=True) == said[1]
    assert await closest(world, ALICE, room, middle_ts, forward=False) == said[1]
    assert await closest(world, ALICE, room, middle_ts + 1, forward=True) == said[2]
    assert await closest(world, ALICE, room, last_ts - 1, forward=False) == said[1]
    assert await closest(world, ALICE, room, first_ts - 1800_000, forward=True) == said[0]
    assert await missing(world, ALICE, room, last_ts + 1, forward=True) == "M_NOT_FOUND"
    assert await missing(world, ALICE, room, 0, forward=False) == "M_NOT_FOUND"


async def test_only_what_the_reader_may_see_is_found(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    ((seen, seen_ts),) = await hours(world, room, 1)
    await world.rooms.leave(BOB, room)
    ((_, later),) = await hours(world, room, 1)
    assert await missing(world, BOB, room, later, forward=True) == "M_NOT_FOUND"
    # The leave itself is theirs to see, and after what was said.
    found, _ = await closest(world, BOB, room, later, forward=False)
    assert found != seen
    assert await closest(world, BOB, room, seen_ts, forward=False) == (seen, seen_ts)
    assert await missing(world, CAROL, room, later, forward=False) == "M_FORBIDDEN"


async def test_what_ignored_users_said_is_passed_over(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    ((event_id, ts),) = await hours(world, room, 1)
    await world.say(BOB, room, "noise")
    content = f'{{"ignored_users": {{"{BOB}": {{}}}}}}'
    await world.db.write(lambda tx: account_data.put(tx, ALICE, account_data.IGNORED_USERS, content))
    assert await closest(world, ALICE, room, ts + 10_000, forward=False) == (event_id, ts)
