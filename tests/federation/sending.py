# SPDX-License-Identifier: Apache-2.0
"""Senders among servers that answer as told, in the place of the federation client, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from minihs.federation.senders import Senders
from minihs.matrix.canonical import JsonObject
from minihs.matrix.federation_errors import RemoteRefused, Unreachable
from minihs.matrix.signatures import SigningKey
from minihs.runtime import Runtime
from minihs.store import ids, outbound, rooms
from minihs.store.database import Database, Tx
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent, insert
from minihs.store.outbound_edus import queue_edu
from minihs.testing.clock import VirtualClock, virtual_runtime
from tests.federation.test_keyring import make_event

DAY = 24 * 3600
KEY = SigningKey.generate(b"\1" * 32, "us")


@dataclass
class Sent:
    """A transaction that reached a destination (or was on its way there)."""

    at: float
    host: str
    txn_id: str
    content: bytes

    @property
    def bodies(self) -> list[str]:
        return [pdu["content"]["body"] for pdu in json.loads(self.content)["pdus"]]

    @property
    def edus(self) -> list[JsonObject]:
        return list(json.loads(self.content).get("edus", []))


@dataclass
class World:
    """Servers that answer as told, in the place of the federation client."""

    db: Database
    runtime: Runtime
    clock: VirtualClock
    sent: list[Sent] = field(default_factory=list)
    answers: dict[str, Callable[[Sent], Any]] = field(default_factory=dict)
    under_way: dict[str, int] = field(default_factory=dict)
    most_at_once: int = 0
    connected: set[str] = field(default_factory=set)
    delay: float = 0.05

    # -- the Client --

    async def send_transaction(self, host: str, txn_id: str, content: bytes, *, within: float) -> JsonObject:
        sent = Sent(trio.current_time(), host, txn_id, content)
        self.sent.append(sent)
        self.under_way[host] = self.under_way.get(host, 0) + 1
        assert self.under_way[host] == 1, "two transactions at once"
        self.most_at_once = max(self.most_at_once, sum(self.under_way.values()))
        try:
            await trio.sleep(self.delay)
            answer = self.answers.get(host, lambda _: {"pdus": {}})(sent)
            if isinstance(answer, float):
                await trio.sleep(min(answer, within))
                raise Unreachable(host, "did not answer in time")
            if isinstance(answer, Exception):
                raise answer
            return dict(answer)
        finally:
            self.under_way[host] -= 1

    def is_connected(self, host: str) -> bool:
        return host in self.connected

    # -- work --

    async def send(self, body: str, *hosts: str, size: int = 0) -> None:
        """A message for these servers."""
        now = self.clock.now_ms()
        event = make_event("us.test", KEY, now, content={"body": body, "pad": "x" * size})

        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, event.room_id, "11")
            nid = insert(tx, room_nid, NewEvent(event, Outcome.ACCEPTED, self.clock.now_ms()))
            host_set = outbound.intern_host_set(tx, hosts)
            assert host_set is not None
            outbound.enqueue(tx, nid, host_set)

        await self.db.write(write)

    async def send_edu(self, host: str, edu_type: str, content: JsonObject) -> None:
        await self.db.write(lambda tx: queue_edu(tx, host, edu_type, content))

    async def share_a_room(self, host: str) -> None:
        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, "!shared:us.test", "11")
            rooms.set_resident(tx, room_nid, True)
            tx.execute(
                "INSERT OR REPLACE INTO room_hosts (room_nid, host_nid, joined) VALUES (?, ?, 1)",
                (room_nid, ids.intern_host(tx, host)),
            )

        await self.db.write(write)

    def to(self, host: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.host == host]

    def got(self, host: str) -> list[str]:
        """Bodies, in the order of sending, repetitions included."""
        return [body for sent in self.to(host) for body in sent.bodies]


@asynccontextmanager
async def world_in(folder: Path) -> AsyncIterator[World]:
    clock = VirtualClock()
    runtime = virtual_runtime(0, clock)
    async with Database.open(folder / "db", runtime, inline=True, synchronous="OFF") as db:
        yield World(db, runtime, clock)


_starts = iter(range(1000))


@asynccontextmanager
async def running(world: World) -> AsyncIterator[Senders]:
    """Senders, from start to stop; each start has chance of its own."""
    runtime = virtual_runtime(next(_starts), world.clock)
    parts = Senders("us.test", world.db, runtime, world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.run)
        await trio.sleep(1)
        yield parts
        nursery.cancel_scope.cancel()
    world.db._callbacks.remove(parts._on_commit)


def refuse(status: int, **body: Any) -> Callable[[Sent], Exception]:
    return lambda sent: RemoteRefused(sent.host, status, {"errcode": "M_UNKNOWN", **body})


def gone(sent: Sent) -> Exception:
    return Unreachable(sent.host, "refused the connection")
