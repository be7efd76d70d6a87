# SPDX-License-Identifier: Apache-2.0
"""Three whole servers, random deeds of their users, slow and lossy links, partitions and restarts: in the end
all see the same room."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.testing.api import ApiClient, ApiError
from minihs.testing.servers import Cluster, cluster

NAMES = ("a.test", "b.test", "c.test")


class Chaos:
    def __init__(self, world: Cluster, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.users: dict[str, ApiClient] = {}
        self.room_id = ""
        self.sent: set[str] = set()
        self.done = 0

    async def start(self, version: str) -> None:
        for name in NAMES:
            for localpart in ("u1", "u2"):
                user = await self.world[name].user(localpart)
                self.users[user.user_id] = user
        self.room_id = await self.users["@u1:a.test"].create_room(preset="public_chat", room_version=version)
        for user in self.users.values():
            await user.join(self.room_id, "a.test")
        levels = (await self.users["@u1:a.test"].state(self.room_id))["m.room.power_levels", ""]["content"]
        levels["users"] = {**levels.get("users", {}), "@u1:b.test": 50, "@u1:c.test": 50}
        await self.users["@u1:a.test"].set_state(self.room_id, "m.room.power_levels", levels)

    async def step(self) -> None:
        """One deed. Refusals are part of life: one may not kick, the other is banned."""
        user = self.random.choice(list(self.users.values()))
        target = self.random.choice(list(self.users))
        action = self.random.choices(
            [self.message, self.topic, self.leave, self.join, self.kick, self.ban, self.unban, self.redact],
            [40, 10, 4, 12, 3, 2, 3, 4],
        )[0]
        try:
            with trio.fail_after(300):
                await action(user, target)
            self.done += 1
        except ApiError as error:
            if error.status == 500:  # 502: nobody to join through in a partition
                raise
        except trio.TooSlowError:
            pass

    async def message(self, user: ApiClient, target: str) -> None:
        self.sent.add(await user.send(self.room_id, f"by {user.user_id}"))

    async def topic(self, user: ApiClient, target: str) -> None:
        topic = {"topic": str(self.random.random())}
        await user.set_state(self.room_id, "m.room.topic", topic)

    async def leave(self, user: ApiClient, target: str) -> None:
        if user.user_id != "@u1:a.test":
            await user.leave(self.room_id)

    async def join(self, user: ApiClient, target: str) -> None:
        await user.join(self.room_id, *self.random.sample(NAMES, 2))

    async def _about(self, user: ApiClient, deed: str, target: str) -> None:
        if target != "@u1:a.test":
            await user.post(f"/rooms/{self.room_id}/{deed}", {"user_id": target})

    async def kick(self, user: ApiClient, target: str) -> None:
        await self._about(user, "kick", target)

    async def ban(self, user: ApiClient, target: str) -> None:
        await self._about(user, "ban", target)

    async def unban(self, user: ApiClient, target: str) -> None:
        await self._about(user, "unban", target)

    async def redact(self, user: ApiClient, target: str) -> None:
        if self.sent:
            event_id = self.random.choice(sorted(self.sent))
            await user.put(f"/rooms/{self.room_id}/redact/{event_id}/{self.done}", {})

    async def trouble(self) -> None:
        """Something happens to the network or to a machine, for a while."""
        kind = self.random.choice(["cut", "cut", "restart", "loss"])
        name = self.random.choice(NAMES)
        others = tuple(other for other in NAMES if other != name)
        if kind == "cut":
            self.world.partition((name,), others)
        elif kind == "loss":
            host = self.world[name].host
            for other in others:
                self.world.internet.link(host, self.world[other].host).loss = 0.3
        else:
            await self.world.stop(name)
            await self.world.start(name)

    async def settle(self) -> None:
        """Everything works again; whoever left comes back, so that each server has a view; then time
        passes."""
        self.world.heal()
        for link in self.world.internet._links.values():
            link.loss = 0.0
        await trio.sleep(3600)
        owner = self.users["@u1:a.test"]
        for name in NAMES[1:]:
            user = self.users[f"@u2:{name}"]
            for _ in range(5):
                try:
                    await owner.post(f"/rooms/{self.room_id}/unban", {"user_id": user.user_id})
                except ApiError:
                    pass
                try:
                    await user.join(self.room_id, "a.test")
                    break
                except ApiError:
                    await trio.sleep(60)
            await user.send(self.room_id, f"{name} is here")
        await owner.send(self.room_id, "so am I")
        await trio.sleep(6 * 3600)

    async def views(self) -> list[dict[tuple[str, str], str]]:
        found = []
        for user_id in ("@u1:a.test", "@u2:b.test", "@u2:c.test"):
            state = await self.users[user_id].state(self.room_id)
            found.append({key: event["event_id"] for key, event in state.items()})
        return found


async def run_chaos(folder: Path, seed: int, deeds: int, **options: Any) -> Chaos:
    async with cluster(*NAMES, folder=folder, seed=seed, latency=0.03) as world:
        chaos = Chaos(world, seed)
        await chaos.start(options.get("version", "12"))
        for number in range(deeds):
            if number % 20 == 10:
                await chaos.trouble()
            if number % 20 == 19:
                world.heal()
            await chaos.step()
            await trio.sleep(chaos.random.uniform(0, 2))
        await chaos.settle()
        views = await chaos.views()
        assert views[0] == views[1] == views[2]
        assert len(views[0]) > 8
        return chaos


@pytest.mark.parametrize(("seed", "version"), [(1, "12"), (2, "11"), (3, "12")])
async def test_three_servers_agree_after_random_deeds_in_a_troubled_network(
    tmp_path: Path, seed: int, version: str
) -> None:
    chaos = await run_chaos(tmp_path, seed, 100, version=version)
    assert chaos.done > 40


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
async def test_three_servers_agree_after_a_thousand_deeds(tmp_path: Path, seed: int) -> None:
    await run_chaos(tmp_path, seed, 1000, version="11" if seed % 4 == 0 else "12")
