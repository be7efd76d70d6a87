# SPDX-License-Identifier: Apache-2.0
"""A client or peer that hangs up in the middle of anything: what was begun is done whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from minihs.matrix.errors import MatrixError
from tests.rooms import invariants
from tests.rooms.world import World, membership_of, state_of, worlds

ALICE, ADA, BOB = "@alice:a.test", "@ada:a.test", "@bob:b.test"
STEPS = 16

type Verb = Callable[[World, str], Awaitable[object]]


async def cancelled_after(ticks: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Begin, and hang up after so many turns of the loop. Whether that came before the end."""
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await call()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        scope.cancel()
    return scope.cancelled_caught


VERBS: dict[str, Verb] = {
    "send": lambda world, room_id: world.servers["a.test"].send(ALICE, room_id, "m.room.message", {}),
    "state": lambda world, room_id: world.servers["a.test"].send(
        ALICE, room_id, "m.room.topic", {"topic": "x"}, state_key=""
    ),
    "create": lambda world, room_id: world.servers["a.test"].create(ADA, {"invite": [BOB]}),
    "join here": lambda world, room_id: world.servers["a.test"].join(ADA, room_id),
    "join there": lambda world, room_id: world.servers["b.test"].join(BOB, room_id, via=["a.test"]),
    "invite": lambda world, room_id: world.servers["a.test"].invite(ALICE, room_id, BOB),
    "leave": lambda world, room_id: world.servers["a.test"].leave(ALICE, room_id),
    "ban": lambda world, room_id: world.servers["a.test"].ban(ALICE, room_id, ADA),
}


@pytest.mark.parametrize("name", VERBS)
async def test_a_request_that_is_cancelled_is_done_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        cancelled = 0
        for steps in range(STEPS):
            room_id = await a.create(ALICE, {"preset": "public_chat", "name": str(steps)})
            before = state_of(a, room_id)
            cancelled += await cancelled_after(steps, partial(VERBS[name], world, room_id))
            await world.rest()
            await world.deliver()
            for server in (a, b):
                for (each,) in server.parts.db.read.execute(
                    "SELECT room_id FROM rooms WHERE resident = 1"
                ).fetchall():
                    invariants.check(server, each)
            if name == "invite":
                assert membership_of(a, room_id, BOB) == membership_of(b, room_id, BOB)
            if name == "join there" and membership_of(b, room_id, BOB) == "join":
                assert state_of(a, room_id) == state_of(b, room_id)
            # And the room goes on.
            if membership_of(a, room_id, ALICE) == "join":
                await a.send(ALICE, room_id, "m.room.name", {"name": "after"}, state_key="")
                assert state_of(a, room_id)["m.room.name", ""] != before["m.room.name", ""]
        assert cancelled > 0


@pytest.mark.parametrize("steps", range(0, 60, 4))
async def test_a_server_that_is_stopped_in_the_middle_of_a_join_is_whole_afterwards(
    tmp_path: Path, steps: int
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await a.join(ADA, room_id)

        stopped: list[int] = []

        async def join() -> None:
            try:
                await world.servers["b.test"].join(BOB, room_id, via=["a.test"])
            except MatrixError as error:
                stopped.append(error.status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            b = await world.restart("b.test")
            nursery.cancel_scope.cancel()
        assert stopped in ([], [503])
        await world.rest()
        if invariants.is_resident(b, room_id):
            invariants.check(b, room_id)
            assert membership_of(b, room_id, BOB) == "join"
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        await a.send(ALICE, room_id, "m.room.message", {})
        await world.deliver()
        invariants.check(b, room_id)
        assert state_of(a, room_id) == state_of(b, room_id)
