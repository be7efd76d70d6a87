# SPDX-License-Identifier: Apache-2.0
"""Stopped, killed, or turned away: what was under way is sent again as it was, and nothing else is."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from minihs.federation.senders import Senders
from minihs.store import destinations
from minihs.store.database import Database
from minihs.testing.clock import virtual_runtime
from tests.federation.sending import DAY, Sent, World, gone, running, world_in

HOSTS = ["a.test", "b.test", "c.test"]


async def test_what_was_delivered_is_not_sent_again_after_a_restart(world: World) -> None:
    async with running(world):
        await world.send("one", "a.test")
        await world.send_edu("a.test", "m.direct_to_device", {"n": 1})
        await trio.sleep(10)
    async with running(world):
        await trio.sleep(100)
    assert world.got("a.test") == ["one"]
    assert sum(len(sent.edus) for sent in world.sent) == 1


async def test_a_cursor_that_is_not_on_disk_yet_is_written_at_the_end(world: World) -> None:
    async with running(world):
        await world.send("one", "a.test")
        await trio.sleep(0.1)
    async with running(world):
        await trio.sleep(10)
    assert world.got("a.test") == ["one"]


async def test_what_waited_during_a_restart_is_sent_after_it(world: World) -> None:
    await world.send("one", "a.test")
    await world.send_edu("b.test", "m.direct_to_device", {"n": 1})
    async with running(world):
        await trio.sleep(10)
    assert world.got("a.test") == ["one"]
    assert len(world.to("b.test")) == 1


async def test_other_contents_have_other_ids_after_a_restart(world: World) -> None:
    for _ in range(3):
        async with running(world):
            await world.send("x", "a.test")
            await trio.sleep(10)
    assert len({sent.txn_id for sent in world.sent}) == 3


async def test_a_message_to_many_servers_writes_nothing_for_each_before_it_is_sent(world: World) -> None:
    hosts = [f"h{number}.test" for number in range(300)]
    async with running(world):
        await world.send("x", *hosts)
        await trio.sleep(10)
    assert {sent.content for sent in world.sent} == {world.sent[0].content}
    rows = destinations.everyone(world.db.read)
    assert len(rows) == 300
    assert all(row.attempt_ts is None for row in rows)


async def test_after_a_restart_destinations_start_spread_in_time(world: World) -> None:
    hosts = [f"h{number}.test" for number in range(300)]
    await world.send("x", *hosts)
    async with running(world):
        await trio.sleep(120)
    times = sorted(sent.at for sent in world.sent)
    assert len(times) == 300
    assert times[-1] - times[0] > 20
    assert times[-1] - times[0] < 61


async def test_cancelling_at_any_moment_loses_and_repeats_nothing_that_matters(tmp_path: Path) -> None:
    """Stop at many moments, start again: in the end each event has arrived, in order but for repetitions."""
    for moment in range(0, 400, 45):
        folder = tmp_path / str(moment)
        folder.mkdir()
        async with world_in(folder) as world:
            bodies = [str(number) for number in range(60)]
            with trio.move_on_after(1 + moment / 1000):
                async with running(world):
                    for body in bodies:
                        await world.send(body, "a.test")
                        await trio.sleep(0.005)
                    await trio.sleep(10)
            sent = len(world.db.read.execute("SELECT 1 FROM outbound").fetchall())
            for parts in list(world.db._callbacks):
                world.db._callbacks.remove(parts)
            async with running(world):
                await trio.sleep(10)
            got = list(dict.fromkeys(world.got("a.test")))
            assert got == bodies[: len(got)]
            assert len(got) == sent


@dataclass
class Crash:
    """What was asked of the senders, over several lives that end at random moments."""

    folder: Path
    world: World
    chance: random.Random
    bodies: dict[str, list[str]] = field(default_factory=lambda: {host: [] for host in HOSTS})
    edus: dict[str, list[int]] = field(default_factory=lambda: {host: [] for host in HOSTS})
    count: int = 0

    async def work(self, senders: Senders) -> None:
        while True:
            self.count += 1
            host = self.chance.choice(HOSTS)
            match self.chance.choice(["pdu", "pdu", "pdu", "edu", "fleeting", "answer", "answer"]):
                case "pdu":
                    hosts = self.chance.sample(HOSTS, self.chance.randint(1, len(HOSTS)))
                    for each in hosts:
                        self.bodies[each].append(str(self.count))
                    await self.world.send(str(self.count), *hosts)
                case "edu":
                    self.edus[host].append(self.count)
                    kind = self.chance.choice(["m.direct_to_device", "m.device_list_update"])
                    await self.world.send_edu(host, kind, {"n": self.count})
                case "fleeting":
                    senders.queue_edu(HOSTS, "m.typing", {}, key=(str(self.count),))
                case "answer":
                    self.world.answers[host] = self.chance.choice(
                        [gone, lambda sent: 1000.0, lambda sent: {"pdus": {}}, lambda sent: {"pdus": {}}]
                    )
            await trio.sleep(self.chance.choice([0, 0, 0, 0.01, 0.3, 1.5]))

    async def life(self, number: int) -> None:
        """Senders with work, until the power is cut."""
        self.world.delay = self.chance.choice([0.001, 0.05, 0.5])
        async with trio.open_nursery() as nursery:
            runtime = virtual_runtime(self.count, self.world.clock)
            senders = Senders("us.test", self.world.db, runtime, self.world)
            nursery.start_soon(senders.run)
            with trio.move_on_after(self.chance.uniform(0, 6)):
                await self.work(senders)
            await trio.sleep(self.chance.choice([0, 0.01, 0.1, 6 * 3600]))
            # What is on disk now is what the next life has; what is written at the end is not.
            shutil.copytree(self.folder / str(number), self.folder / str(number + 1))
            nursery.cancel_scope.cancel()

    async def run(self) -> None:
        lives = self.chance.randint(2, 6)
        (self.folder / "0").mkdir(parents=True)
        for number in range(lives):
            async with self.open(number):
                await self.life(number)
        async with self.open(lives):
            self.world.answers.clear()
            async with running(self.world):
                await trio.sleep(8 * DAY)

    @asynccontextmanager
    async def open(self, number: int) -> AsyncIterator[None]:
        path = self.folder / str(number) / "db"
        async with Database.open(path, self.world.runtime, inline=True, synchronous="OFF") as self.world.db:
            yield


async def test_killed_at_any_moment_nothing_is_sent_in_two_transactions(world: World, tmp_path: Path) -> None:
    """The rule in full: an id has one content, and what must not be lost is in one transaction, which may
    come again."""
    repeated = 0
    for seed in range(25):
        world.sent.clear()
        world.answers.clear()
        crash = Crash(tmp_path / str(seed), world, random.Random(seed))
        await crash.run()
        for host in HOSTS:
            transactions: dict[str, Sent] = {}
            for sent in world.to(host):
                assert transactions.setdefault(sent.txn_id, sent).content == sent.content
            repeated += len(world.to(host)) - len(transactions)
            bodies = [body for sent in transactions.values() for body in sent.bodies]
            assert bodies == crash.bodies[host], f"seed {seed}, {host}"
            edus = [edu["content"].get("n") for sent in transactions.values() for edu in sent.edus]
            assert sorted(filter(None, edus)) == crash.edus[host], f"seed {seed}, {host}"
    assert repeated > 100
