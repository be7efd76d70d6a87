# SPDX-License-Identifier: Apache-2.0
"""A server that is away for long: down, or cut off while life goes on at both ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.testing.api import ApiClient
from minihs.testing.servers import Cluster
from tests.simulation.crowd import Crowd
from tests.simulation.deeds import Deeds
from tests.simulation.inspection import (
    Holding,
    check_extremities,
    check_inbox_is_empty,
    check_nothing_lost,
    check_timeline,
)
from tests.simulation.stage import crash, run_seeded, stage
from tests.simulation.watcher import Watcher

HOUR = 3600.0
DAY = 24 * HOUR


def test_a_server_that_was_away_for_48_hours_misses_nothing(tmp_path: Path) -> None:
    run_seeded(_away_for_48_hours, 1, tmp_path)


async def _away_for_48_hours(folder: Path) -> None:
    names = ["a.test", "b.test", "c.test"]
    async with stage(names, folder, seed=1) as world:
        crowd = Crowd(world, 1)
        deeds = Deeds(crowd)
        await crowd.gather("12")
        watchers = {name: Watcher(crowd.observers[name], crowd.room_id, limit=10) for name in names}
        for watcher in watchers.values():
            await watcher.step(0)
        await deeds.message(crowd.people["@u1:c.test"], "")  # it has something to say, too, and no time left
        await world.stop("c.test")
        for _ in range(24):
            for name in ("a.test", "b.test"):
                await deeds.message(crowd.people[f"@u1:{name}"], "")
                await deeds.own_state(crowd.people[f"@u2:{name}"], "")
            await trio.sleep(2 * HOUR)
        await world.start("c.test")
        # Nobody says anything new: what was missed comes by itself, when those who have it try again.
        await trio.sleep(2 * DAY)
        last = await crowd.host.send(crowd.room_id, "the last word")
        crowd.ledger.events[last], crowd.ledger.texts[last] = "message", "the last word"
        await trio.sleep(HOUR)
        states = []
        for name, watcher in watchers.items():
            for _ in range(3):
                await watcher.step(0)
            holding = Holding.of(world, name, crowd.room_id)
            check_inbox_is_empty(holding)
            check_nothing_lost(holding, crowd.ledger)
            check_extremities(holding, last)
            check_timeline(watcher, holding, crowd.ledger)
            state = await crowd.observers[name].state(crowd.room_id)
            states.append({key: event["event_id"] for key, event in state.items()})
        assert len(crowd.ledger.texts) == 24 * 2 + 2
        assert states[0] == states[1] == states[2]


class Devices:
    """To-device messages and device lists between two people, whose device ids stay the same."""

    def __init__(self, world: Cluster, here: ApiClient, there: ApiClient) -> None:
        self.world = world
        self.here, self.there = here, there
        self.sent: dict[str, list[int]] = {here.user_id: [], there.user_id: []}
        """By receiver."""
        self.keys: dict[str, str] = {}
        self._count = 0

    async def write(self, sender: ApiClient) -> None:
        """A message to the other's device, and a new key of one's own."""
        target = self.there if sender is self.here else self.here
        self._count += 1
        messages = {target.user_id: {target.device_id: {"n": self._count}}}
        await sender.put(f"/sendToDevice/org.example.secret/d{self._count}", {"messages": messages})
        self.sent[target.user_id].append(self._count)
        key_id, key = f"ed25519:{sender.device_id}", f"key {self._count}"
        device = {
            "user_id": sender.user_id,
            "device_id": sender.device_id,
            "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": {key_id: key},
            "signatures": {sender.user_id: {key_id: "signature"}},
        }
        await sender.post("/keys/upload", {"device_keys": device})
        self.keys[sender.user_id] = key

    async def check(self) -> None:
        """Each message came once, in order; each is known by the newest key, and was told of the change."""
        for reader, other in ((self.here, self.there), (self.there, self.here)):
            answer = await reader.sync()
            got = [event["content"]["n"] for event in answer["to_device"]["events"]]
            assert got == self.sent[reader.user_id], reader
            assert other.user_id in answer["device_lists"]["changed"]
            found = await reader.post("/keys/query", {"device_keys": {other.user_id: []}})
            assert found["failures"] == {}
            [device] = found["device_keys"][other.user_id].values()
            assert list(device["keys"].values()) == [self.keys[other.user_id]], reader


@pytest.mark.parametrize("how", ["down", "cut off", "cut off, and a power cut on either side"])
def test_after_48_hours_everything_comes_by_itself(tmp_path: Path, how: str) -> None:
    """Events, messages to devices and device lists, in both directions, with nobody saying anything new."""
    run_seeded(_everything_comes, 2, tmp_path, how)


async def _everything_comes(folder: Path, how: str) -> None:
    names = ["a.test", "b.test", "c.test"]
    async with stage(names, folder, seed=2) as world:
        crowd = Crowd(world, 2)
        deeds = Deeds(crowd)
        await crowd.gather("12")
        here, there = crowd.people["@u1:a.test"], crowd.people["@u1:c.test"]
        devices = Devices(world, here, there)
        for person in (here, there):
            await devices.write(person)
        await trio.sleep(HOUR)
        for person in (here, there):  # each knows the other's list before
            await person.sync()
            await person.post("/keys/query", {"device_keys": {each: [] for each in crowd.people}})
        devices.sent = {user_id: [] for user_id in devices.sent}

        if how == "down":
            # What it says last it can't send any more.
            world.partition(("a.test", "b.test"), ("c.test",))
            await devices.write(there)
            await deeds.message(there, "")
            await world.stop("c.test")
            world.heal()
        else:
            world.partition(("a.test", "b.test"), ("c.test",))
        for hour in range(0, 48, 2):
            for name in names if how != "down" else names[:2]:
                await deeds.message(crowd.people[f"@u1:{name}"], "")
                await deeds.own_state(crowd.people[f"@u2:{name}"], "")
            await devices.write(here)
            if how != "down":
                await devices.write(there)
            if "power" in how and hour in (20, 30):
                await crash(world, "c.test" if hour == 20 else "a.test")
                await world.start("c.test" if hour == 20 else "a.test")
            await trio.sleep(2 * HOUR)
        if how == "down":
            await world.start("c.test")
        world.heal()
        # The longest pause is a day, with some chance in it.
        await trio.sleep(30 * HOUR)
        await devices.check()
        assert len(devices.sent[there.user_id]) == 24
        states = []
        for name in names:
            holding = Holding.of(world, name, crowd.room_id)
            check_inbox_is_empty(holding)
            check_nothing_lost(holding, crowd.ledger)
            state = await crowd.observers[name].state(crowd.room_id)
            states.append({key: event["event_id"] for key, event in state.items()})
        assert states[0] == states[1] == states[2]
        assert len(crowd.ledger.texts) == (24 * 2 + 1 if how == "down" else 24 * 3)
