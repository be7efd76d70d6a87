# SPDX-License-Identifier: Apache-2.0
"""Several servers' rooms that call each other directly: no HTTP, but signatures are checked for real.

Each server runs in a task of its own over a database on disk, so it can be stopped at any moment and started
again. Nothing may be logged above a warning unless the test says so (`World.loud`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from minihs.matrix.event import Event
from minihs.matrix.signatures import (
    SignatureError,
    SigningKey,
    servers_that_must_sign,
    verify_event_signature,
)
from minihs.rooms.at_once import AtOnce
from minihs.rooms.service import Rooms
from minihs.rooms.transactions import EduHandler
from minihs.runtime import InlineThreads, Runtime
from minihs.store import memberships
from minihs.store import rooms as room_store
from minihs.store.database import Database, Reader
from minihs.store.events import StoredEvent
from minihs.testing.clock import SeededRandom
from tests.rooms.wires import DirectFederation, Hook, copied

type JsonObject = dict[str, Any]


class WorldClock:
    """Wall time: it moves a millisecond whenever somebody looks, and when the test says so."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms


class FakeUsers:
    def exists(self, user_id: str) -> bool:
        return not user_id.startswith("@nobody")

    def member_profile(self, user_id: str) -> JsonObject:
        return {"displayname": user_id[1:].partition(":")[0]}

    def check_may_invite(self, sender: str, target: str) -> None:
        return None


@dataclass
class World:
    """All servers, their keys, and which can't reach which."""

    folder: Path
    nursery: trio.Nursery
    clock: WorldClock = field(default_factory=WorldClock)
    keys: dict[str, SigningKey] = field(default_factory=dict)
    servers: dict[str, Rooms] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    hooks: dict[tuple[str, str], Hook] = field(default_factory=dict)
    """(host, verb of the Federation port) → who answers in its place."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(who asked, whom, verb): all calls so far."""
    durable: dict[str, EduHandler] = field(default_factory=dict)
    fleeting: dict[str, EduHandler] = field(default_factory=dict)
    sent_up_to: dict[tuple[str, str], int] = field(default_factory=dict)
    txn: int = 0
    partial_joins: bool = False
    loud: bool = False
    """Errors may be logged."""
    logs: list[Any] = field(default_factory=list)
    _starts: int = 0
    _stops: dict[str, tuple[trio.Event, trio.Event]] = field(default_factory=dict)

    # -- servers -----------------------------------------------------------------------------------

    async def start(self, name: str) -> Rooms:
        self.keys.setdefault(name, SigningKey.generate(name.encode().ljust(32, b".")[:32], "1"))
        await self.nursery.start(self._serve, name)
        return self.servers[name]

    async def stop(self, name: str) -> None:
        """At once, whatever it is doing: what its jobs had not written is lost."""
        stop, ended = self._stops[name]
        stop.set()
        await ended.wait()

    async def restart(self, name: str) -> Rooms:
        await self.stop(name)
        return await self.start(name)

    async def _serve(self, name: str, task_status: trio.TaskStatus[None]) -> None:
        stop, ended = self._stops[name] = trio.Event(), trio.Event()
        self._starts += 1
        chance = SeededRandom(f"{self._starts} {name}")
        runtime = Runtime(clock=self.clock, random=chance, threads=InlineThreads())
        path = self.folder / f"{name}.db"
        try:
            async with (
                Database.open(path, runtime, inline=True, synchronous="OFF") as db,
                trio.open_nursery() as nursery,
            ):
                self.servers[name] = rooms = Rooms(
                    our_name=name,
                    signing_key=self.keys[name],
                    db=db,
                    runtime=runtime,
                    keys=self,
                    federation=DirectFederation(self, name),
                    users=FakeUsers(),
                    visible_to=everything_is_visible,
                    durable_edus=self.durable,
                    fleeting_edus=self.fleeting,
                    default_room_version="12",
                    partial_joins=self.partial_joins,
                    nursery=nursery,
                )
                nursery.start_soon(rooms.run)
                task_status.started()
                await stop.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.servers.pop(name, None)
            ended.set()

    # -- keys --------------------------------------------------------------------------------------

    async def verify_events(self, events: Sequence[Event]) -> list[Exception | None]:
        await trio.lowlevel.checkpoint()
        return [self._verify(event) for event in events]

    def _verify(self, event: Event) -> Exception | None:
        for host in servers_that_must_sign(event):
            key = self.keys.get(host)
            if key is None:
                return SignatureError(f"no key of {host}")
            try:
                verify_event_signature(event, host, key.key_id, key.verify_key)
            except SignatureError as error:
                return error
        return None

    # -- the network -------------------------------------------------------------------------------

    def separate(self, *hosts: str) -> None:
        everybody = self.keys
        self.cut |= {frozenset((a, b)) for a in hosts for b in everybody if b not in hosts}

    def reunite(self) -> None:
        self.cut.clear()

    async def send(self, origin: str, target: str, pdus: Sequence[Any], edus: Sequence[Any] = ()) -> Any:
        """One transaction, and wait until it is dealt with. Returns the answer."""
        self.txn += 1
        body = {"origin": origin, "pdus": [copied(pdu) for pdu in pdus], "edus": list(edus)}
        answer = await self.servers[target].transactions.receive(origin, f"t{self.txn}", body)
        await self.rest()
        return answer

    async def deliver(self) -> None:
        """Send what waits, as the senders would, until nothing moves any more."""
        for _ in range(50):
            if not await self.deliver_once():
                return
        raise AssertionError("the servers never come to rest")

    async def deliver_once(self) -> bool:
        moved = False
        for host in list(self.servers):
            for target in list(self.servers):
                moved |= await self.deliver_between(host, target)
        await self.rest()
        return moved

    async def deliver_between(self, host: str, target: str) -> bool:
        if target == host or frozenset((host, target)) in self.cut:
            return False
        rows = outbound_rows(self.servers[host], target, self.sent_up_to.get((host, target), 0))
        for start in range(0, len(rows), 50):
            part = rows[start : start + 50]
            self.txn += 1
            body = {"origin": host, "pdus": copied([pdu for _, pdu in part]), "edus": []}
            await self.servers[target].transactions.receive(host, f"t{self.txn}", body)
            self.sent_up_to[host, target] = part[-1][0]
        return bool(rows)

    async def rest(self) -> None:
        """Wait until no room has work."""
        for _ in range(10_000):
            await trio.testing.wait_all_tasks_blocked()
            if not any(rooms.parts.tasks.any_busy() for rooms in self.servers.values()):
                return
            await trio.sleep(0.001)  # a room that rests after a long step, on a busy machine for a while
        raise AssertionError("rooms stay busy")

    async def wait(self, seconds: float) -> None:
        """Wall time passes; what is due is done."""
        self.clock.ms += int(seconds * 1000)
        for rooms in self.servers.values():
            rooms.receiver.look_again()
            rooms.resync.look_again()
        await self.rest()

    def check_logs(self) -> None:
        if not self.loud:
            bad = [entry for entry in self.logs if entry["log_level"] in ("error", "critical")]
            assert not bad, bad


def outbound_rows(rooms: Rooms, target: str, after: int) -> list[tuple[int, JsonObject]]:
    rows = rooms.parts.db.read.execute(
        "SELECT o.seq, i.event_id FROM outbound o JOIN host_set_members m USING (host_set_nid) "
        "JOIN hosts h ON h.host_nid = m.host_nid JOIN event_ids i ON i.event_nid = o.event_nid "
        "WHERE h.host = ? AND o.seq > ? ORDER BY o.seq",
        (target, after),
    ).fetchall()
    found = []
    for seq, event_id in rows:
        stored = rooms.parts.graph.stored(event_id)
        assert stored is not None
        found.append((seq, stored.event.json))
    return found


def state_of(server: Rooms, room_id: str) -> dict[tuple[str, str], str]:
    nid = room_store.room_nid(server.parts.db.read, room_id)
    assert nid is not None
    return {(t, k): e for t, k, e in memberships.current_state_ids(server.parts.db.read, nid)}


def timeline_of(server: Rooms, room_id: str) -> list[str]:
    """What clients would be shown, in the order of the DAG."""
    return [
        row[0]
        for row in server.parts.db.read.execute(
            "SELECT i.event_id FROM events e JOIN event_ids i USING (event_nid) "
            "JOIN rooms r USING (room_nid) "
            "WHERE r.room_id = ? AND e.topo IS NOT NULL AND e.outcome = 0 ORDER BY e.topo, e.arrival",
            (room_id,),
        ).fetchall()
    ]


def membership_of(server: Rooms, room_id: str, user_id: str) -> str | None:
    """As clients would see it, in or out of the room."""
    nid = room_store.room_nid(server.parts.db.read, room_id)
    held = None if nid is None else memberships.get(server.parts.db.read, nid, user_id)
    return None if held is None else held.membership


def stored(server: Rooms, event_id: str) -> StoredEvent | None:
    return server.parts.graph.stored(event_id)


def everything_is_visible(db: Reader, host: str, nids: Sequence[int]) -> set[int]:
    return set(nids)


@asynccontextmanager
async def worlds(tmp_path: Path, *names: str, partial_joins: bool = False) -> AsyncIterator[World]:
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            world = World(tmp_path, nursery, partial_joins=partial_joins, logs=logs)
            for name in names:
                await world.start(name)
            yield world
            await world.rest()
            for name in list(world.servers):
                await world.stop(name)
    world.check_logs()


def by_the_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no event has its place at once."""

    async def take(*_args: object) -> bool:
        return False

    monkeypatch.setattr(AtOnce, "take", take)
