# SPDX-License-Identifier: Apache-2.0
"""Several servers' rooms that call each other directly: the logic without HTTP, signatures checked for real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio.testing

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import RemoteRefused, Unreachable
from minihs.matrix.signatures import (
    SignatureError,
    SigningKey,
    servers_that_must_sign,
    verify_event_signature,
)
from minihs.rooms.service import Rooms
from minihs.runtime import InlineThreads, Runtime
from minihs.store.database import Database
from minihs.store.events import StoredEvent

JsonObject = dict[str, Any]


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

    keys: dict[str, SigningKey] = field(default_factory=dict)
    servers: dict[str, Rooms] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    edus: list[tuple[str, str, JsonObject]] = field(default_factory=list)
    sent_up_to: dict[tuple[str, str], int] = field(default_factory=dict)
    txn: int = 0

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

    def separate(self, *hosts: str) -> None:
        self.cut |= {frozenset((a, b)) for a in hosts for b in self.servers if b not in hosts}

    def reunite(self) -> None:
        self.cut.clear()

    async def deliver(self) -> None:
        """Send what waits, as the senders would, until nothing moves any more."""
        for _ in range(50):
            if not await self._deliver_once():
                return
        raise AssertionError("the servers never come to rest")

    async def _deliver_once(self) -> bool:
        moved = False
        for host, rooms in self.servers.items():
            for target, other in self.servers.items():
                if target == host or frozenset((host, target)) in self.cut:
                    continue
                rows = outbound_rows(rooms, target, self.sent_up_to.get((host, target), 0))
                for start in range(0, len(rows), 50):
                    part = rows[start : start + 50]
                    self.txn += 1
                    await other.transactions.receive(
                        host, f"t{self.txn}", {"origin": host, "pdus": [pdu for _, pdu in part], "edus": []}
                    )
                    self.sent_up_to[host, target] = part[-1][0]
                    moved = True
        await self.rest()
        return moved

    async def rest(self) -> None:
        """Wait until no room has work."""
        for _ in range(10_000):
            await trio.testing.wait_all_tasks_blocked()
            if not any(rooms.parts.tasks.any_busy() for rooms in self.servers.values()):
                return
        raise AssertionError("rooms stay busy")


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


@dataclass
class Spooled:
    state: list[bytes]
    auth_chain: list[bytes]
    event: JsonObject | None
    members_omitted: bool = False
    servers_in_room: list[str] | None = None


class DirectFederation:
    """The Federation port of one server: calls the other's verbs, with JSON copied in between."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    async def _ask(self, host: str, call: Any) -> Any:
        await trio.lowlevel.checkpoint()
        other = self._world.servers.get(host)
        if other is None or frozenset((self._name, host)) in self._world.cut:
            raise Unreachable(host, "is not there")
        try:
            answer = call(other)
            if hasattr(answer, "__await__"):
                answer = await answer
        except MatrixError as error:
            raise RemoteRefused(host, error.status, error.to_json()) from error
        return msgspec.json.decode(canonical.dumps(answer)) if answer is not None else None

    async def make_join(self, host: str, room_id: str, user_id: str, versions: Collection[str]) -> Any:
        return await self._ask(
            host, lambda r: r.resident.make(self._name, room_id, user_id, "join", list(versions))
        )

    @asynccontextmanager
    async def send_join(
        self, host: str, room_id: str, event_id: str, pdu: JsonObject
    ) -> AsyncIterator[Spooled]:
        answer = await self._ask(host, lambda r: r.resident.send_join(self._name, room_id, event_id, pdu))
        yield Spooled(
            [canonical.dumps(item) for item in answer["state"]],
            [canonical.dumps(item) for item in answer["auth_chain"]],
            answer.get("event"),
        )

    async def make_leave(self, host: str, room_id: str, user_id: str) -> Any:
        return await self._ask(host, lambda r: r.resident.make(self._name, room_id, user_id, "leave", None))

    async def send_leave(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> None:
        await self._ask(host, lambda r: r.resident.send_leave(self._name, room_id, event_id, pdu))

    async def make_knock(self, host: str, room_id: str, user_id: str, versions: Collection[str]) -> Any:
        return await self._ask(
            host, lambda r: r.resident.make(self._name, room_id, user_id, "knock", list(versions))
        )

    async def send_knock(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> Any:
        return await self._ask(host, lambda r: r.resident.send_knock(self._name, room_id, event_id, pdu))

    async def invite(
        self,
        host: str,
        room_id: str,
        event_id: str,
        version: str,
        pdu: JsonObject,
        stripped: list[JsonObject],
    ) -> Any:
        return await self._ask(
            host, lambda r: r.invites.receive(self._name, room_id, event_id, version, pdu, stripped)
        )

    async def get_missing_events(
        self,
        host: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int = 0,
    ) -> Any:
        return await self._ask(
            host,
            lambda r: r.serving.missing_events(
                self._name, room_id, earliest=earliest, latest=latest, limit=limit, min_depth=min_depth
            ),
        )

    async def get_event(self, host: str, event_id: str) -> Any:
        return await self._ask(host, lambda r: r.serving.event(self._name, event_id))

    async def get_state_ids(self, host: str, room_id: str, event_id: str) -> Any:
        return await self._ask(host, lambda r: r.serving.state_ids(self._name, room_id, event_id))

    async def get_state(self, host: str, room_id: str, event_id: str) -> Any:
        return await self._ask(host, lambda r: r.serving.state(self._name, room_id, event_id))

    async def get_event_auth(self, host: str, room_id: str, event_id: str) -> Any:
        return await self._ask(host, lambda r: r.serving.event_auth(self._name, room_id, event_id))

    async def backfill(self, host: str, room_id: str, event_ids: Sequence[str], limit: int) -> Any:
        return await self._ask(host, lambda r: r.serving.backfill(self._name, room_id, event_ids, limit))

    async def query_directory(self, host: str, alias: str) -> Any:
        return await self._ask(host, lambda r: r.directory.resolve_local(alias))


def everything_is_visible(host: str, events: Sequence[StoredEvent]) -> set[str]:
    return {item.event.event_id for item in events}


@asynccontextmanager
async def worlds(tmp_path: Path, *names: str) -> AsyncIterator[World]:
    world = World()
    runtime = Runtime(threads=InlineThreads())
    async with trio.open_nursery() as nursery:
        async with _open(world, runtime, nursery, tmp_path, list(names)):
            yield world
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open(
    world: World, runtime: Runtime, nursery: trio.Nursery, tmp_path: Path, names: list[str]
) -> AsyncIterator[None]:
    if not names:
        yield
        return
    name = names[0]
    key = SigningKey.generate(bytes([len(names)] * 32), "1")
    world.keys[name] = key
    async with Database.open(tmp_path / f"{name}.db", runtime, inline=True, synchronous="OFF") as db:
        rooms = Rooms(
            our_name=name,
            signing_key=key,
            db=db,
            runtime=runtime,
            keys=world,
            federation=DirectFederation(world, name),
            users=FakeUsers(),
            visible_to=everything_is_visible,
            durable_edus={},
            fleeting_edus={},
            default_room_version="12",
            nursery=nursery,
        )
        nursery.start_soon(rooms.run)
        world.servers[name] = rooms
        async with _open(world, runtime, nursery, tmp_path, names[1:]):
            yield
