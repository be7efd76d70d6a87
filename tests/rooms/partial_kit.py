# SPDX-License-Identifier: Apache-2.0
"""A room that is joined by part of its state, and the rest kept back for as long as a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minihs.matrix.federation_errors import Unreachable
from minihs.rooms.service import Rooms
from minihs.store import rooms as room_store
from tests.rooms import invariants
from tests.rooms.world import World, state_of, worlds

ALICE, BOB, EVE, VIC, SECOND = "@alice:h.test", "@bob:h.test", "@eve:e.test", "@vic:v.test", "@second:v.test"


async def give_nothing(honest: Any, *args: Any) -> Any:
    raise Unreachable("somebody", "is busy")


@dataclass
class Scene:
    """Alice's room on h.test, with Bob and Eve; Vic of v.test joins it, and nobody tells him the members."""

    world: World
    room_id: str

    @property
    def v(self) -> Rooms:
        return self.world.servers["v.test"]

    @property
    def h(self) -> Rooms:
        return self.world.servers["h.test"]

    @property
    def e(self) -> Rooms:
        return self.world.servers["e.test"]

    @property
    def is_partial(self) -> bool:
        room = room_store.get(self.v.parts.db.read, self.room_id)
        return room is not None and room.partial

    async def join(self) -> None:
        await self.v.join(VIC, self.room_id, via=["h.test"])
        await self.world.rest()

    async def say(self, server: Rooms, user_id: str, body: str) -> str:
        event_id = await server.send(user_id, self.room_id, "m.room.message", {"body": body})
        await self.world.deliver()
        return event_id

    def keep_back(self) -> None:
        for host in ("h.test", "e.test"):
            self.world.hooks[host, "state_at"] = give_nothing

    async def complete(self) -> None:
        for host in ("h.test", "e.test"):
            self.world.hooks.pop((host, "state_at"), None)
        await self.world.wait(7200)
        await self.world.deliver()
        assert not self.is_partial
        invariants.check(self.v, self.room_id)

    def check_like_others(self) -> None:
        assert state_of(self.v, self.room_id) == state_of(self.h, self.room_id)
        invariants.check_against_oracle(self.world, self.room_id)


@asynccontextmanager
async def scenes(tmp_path: Path, version: str = "12", preset: str = "public_chat") -> AsyncIterator[Scene]:
    async with worlds(tmp_path, "v.test", "h.test", "e.test", partial_joins=True) as world:
        h, e = world.servers["h.test"], world.servers["e.test"]
        room_id = await h.create(ALICE, {"preset": preset, "room_version": version, "name": "N"})
        if preset == "public_chat":
            await h.join(BOB, room_id)
            await e.join(EVE, room_id, via=["h.test"])
        await world.wait(1)
        await world.deliver()
        scene = Scene(world, room_id)
        scene.keep_back()
        yield scene
