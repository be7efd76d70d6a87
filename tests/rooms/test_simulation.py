# SPDX-License-Identifier: Apache-2.0
"""Random things happen on three servers, some of the time cut off from each other: in the end they agree."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from minihs.matrix.errors import MatrixError
from minihs.rooms.service import Rooms
from tests.rooms.world import World, state_of, worlds

HOSTS = ["a.test", "b.test", "c.test"]
USERS = {host: [f"@{name}:{host}" for name in ("u1", "u2")] for host in HOSTS}
OWNER = "@u1:a.test"


class Chaos:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.room_id = ""
        self.refused = 0
        self.done = 0

    def server_of(self, user_id: str) -> Rooms:
        return self.world.servers[user_id.partition(":")[2]]

    async def start(self, version: str) -> None:
        a = self.world.servers["a.test"]
        self.room_id = await a.create(OWNER, {"preset": "public_chat", "room_version": version})
        for host in HOSTS:
            for user_id in USERS[host]:
                await self.server_of(user_id).join(user_id, self.room_id, via=["a.test"])
        await self.world.deliver()

    async def step(self) -> None:
        everyone = [user_id for users in USERS.values() for user_id in users]
        user_id, target = self.random.choice(everyone), self.random.choice(everyone)
        server = self.server_of(user_id)
        action = self.random.choices(
            [
                self.message,
                self.name,
                self.levels,
                self.join,
                self.leave,
                self.kick,
                self.ban,
                self.redact,
                self.rules,
            ],
            [30, 8, 6, 10, 4, 3, 2, 4, 2],
        )[0]
        try:
            await action(server, user_id, target)
            self.done += 1
        except MatrixError:
            self.refused += 1

    async def message(self, server: Rooms, user_id: str, target: str) -> None:
        await server.send(
            user_id, self.room_id, "m.room.message", {"n": self.random.random() > 2, "t": target}
        )

    async def name(self, server: Rooms, user_id: str, target: str) -> None:
        kind, key = self.random.choice([("m.room.name", "name"), ("m.room.topic", "topic"), ("x.any", "v")])
        await server.send(user_id, self.room_id, kind, {key: str(self.random.random())}, state_key="")

    async def levels(self, server: Rooms, user_id: str, target: str) -> None:
        event_id = state_of(server, self.room_id)["m.room.power_levels", ""]
        event = server.parts.graph.event(event_id)
        assert event is not None
        level = self.random.choice([0, 0, 50, 50, 60, 100])
        content = {**event.content, "users": {**event.content.get("users", {}), target: level}}
        await server.send(user_id, self.room_id, "m.room.power_levels", content, state_key="")

    async def rules(self, server: Rooms, user_id: str, target: str) -> None:
        rule = self.random.choice(["public", "public", "invite"])
        await server.send(user_id, self.room_id, "m.room.join_rules", {"join_rule": rule}, state_key="")

    async def join(self, server: Rooms, user_id: str, target: str) -> None:
        await server.join(user_id, self.room_id, via=HOSTS)

    async def leave(self, server: Rooms, user_id: str, target: str) -> None:
        if user_id != OWNER:
            await server.leave(user_id, self.room_id)

    async def kick(self, server: Rooms, user_id: str, target: str) -> None:
        await server.kick(user_id, self.room_id, target)

    async def ban(self, server: Rooms, user_id: str, target: str) -> None:
        if self.random.random() < 0.5:
            await server.unban(user_id, self.room_id, target)
        elif target != OWNER:
            await server.ban(user_id, self.room_id, target)

    async def redact(self, server: Rooms, user_id: str, target: str) -> None:
        rows = server.parts.db.read.execute(
            "SELECT i.event_id FROM events e JOIN event_ids i USING (event_nid) WHERE e.type = 'm.room.message' "
            "ORDER BY e.event_nid DESC LIMIT 20"
        ).fetchall()
        if rows:
            await server.redact(user_id, self.room_id, self.random.choice(rows)[0], {}, None, None)

    async def run(self, steps: int) -> None:
        for count in range(steps):
            roll = self.random.random()
            if roll < 0.02:
                self.world.separate(self.random.choice(HOSTS))
            elif roll < 0.05:
                self.world.reunite()
            if roll < 0.4:
                await self.world.deliver()
            await self.step()
            assert count >= 0
        self.world.reunite()
        await self.world.deliver()

    async def settle(self) -> None:
        """Everybody who is in the room says something, so that each server hears of each other's newest events."""
        for _ in range(3):
            for users in USERS.values():
                for user_id in users:
                    try:
                        await self.message(self.server_of(user_id), user_id, "")
                    except MatrixError:
                        continue
            await self.world.deliver()


@pytest.mark.parametrize("seed", range(20))
async def test_servers_agree_after_random_operations_and_partitions(tmp_path: Path, seed: int) -> None:
    async with worlds(tmp_path, *HOSTS) as world:
        chaos = Chaos(world, seed)
        await chaos.start(["6", "10", "11", "12"][seed % 4])
        await chaos.run(150)
        await chaos.settle()
        assert chaos.done > 30
        states = {}
        for host, server in world.servers.items():
            row = server.parts.db.read.execute(
                "SELECT resident FROM rooms WHERE room_id = ?", (chaos.room_id,)
            ).fetchone()
            if row[0]:
                states[host] = state_of(server, chaos.room_id)
        hosts = list(states)
        for host in hosts[1:]:
            assert states[host] == states[hosts[0]], f"{host} and {hosts[0]} disagree"
