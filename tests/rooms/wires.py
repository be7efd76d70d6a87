# SPDX-License-Identifier: Apache-2.0
"""The Federation port without HTTP: calls the other server's verbs, with JSON copied in between.

A test may put itself between two servers: `World.hooks[host, verb]` is asked instead of the host, and given
the honest way to ask it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError, unrecognized
from minihs.matrix.federation_errors import RemoteRefused, Unreachable
from minihs.rooms.answers import EventsAnswer

if TYPE_CHECKING:
    from minihs.rooms.service import Rooms
    from tests.rooms.world import World

type JsonObject = dict[str, Any]
type Hook = Callable[..., Awaitable[Any]]
"""`hook(honest, asker, *args)`, where `await honest()` is what the host would answer."""


@dataclass
class Spooled:
    state: list[bytes]
    auth_chain: list[bytes]
    event: JsonObject | None
    members_omitted: bool = False
    servers_in_room: list[str] | None = None


def copied(value: Any) -> Any:
    """As it would come out of the other end of a wire."""
    try:
        return msgspec.json.decode(canonical.dumps(value))
    except (ValueError, msgspec.DecodeError):
        return value  # what a hostile peer puts together may have no such form


class DirectFederation:
    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    async def _ask(self, host: str, verb: str, args: Sequence[Any], call: Callable[[Any], Any]) -> Any:
        await trio.lowlevel.checkpoint()

        async def honest() -> Any:
            other = self._world.servers.get(host)
            if other is None or frozenset((self._name, host)) in self._world.cut:
                raise Unreachable(host, "is not there")
            try:
                answer = call(other)
                if hasattr(answer, "__await__"):
                    answer = await answer
            except MatrixError as error:
                raise RemoteRefused(host, error.status, error.to_json()) from error
            return copied(answer) if answer is not None else None

        self._world.asked.append((self._name, host, verb))
        hook = self._world.hooks.get((host, verb))
        return await honest() if hook is None else await hook(honest, self._name, *args)

    async def make_join(self, host: str, room_id: str, user_id: str, versions: Collection[str]) -> Any:
        return await self._make(host, room_id, user_id, "join", list(versions))

    async def make_leave(self, host: str, room_id: str, user_id: str) -> Any:
        return await self._make(host, room_id, user_id, "leave", None)

    async def make_knock(self, host: str, room_id: str, user_id: str, versions: Collection[str]) -> Any:
        return await self._make(host, room_id, user_id, "knock", list(versions))

    async def _make(
        self, host: str, room_id: str, user_id: str, membership: str, versions: list[str] | None
    ) -> Any:
        return await self._ask(
            host,
            f"make_{membership}",
            (room_id, user_id),
            lambda r: r.resident.make(self._name, room_id, user_id, membership, versions),
        )

    @asynccontextmanager
    async def send_join(
        self, host: str, room_id: str, event_id: str, pdu: JsonObject, *, omit_members: bool = False
    ) -> AsyncIterator[Spooled]:
        answer = await self._ask(
            host,
            "send_join",
            (room_id, event_id, pdu),
            lambda r: _whole(
                r.resident.send_join(self._name, room_id, event_id, copied(pdu), omit_members=omit_members)
            ),
        )
        yield Spooled(
            [_raw(item) for item in answer["state"]],
            [_raw(item) for item in answer["auth_chain"]],
            answer.get("event"),
            answer.get("members_omitted", False),
            answer.get("servers_in_room"),
        )

    @asynccontextmanager
    async def state_at(self, host: str, room_id: str, event_id: str) -> AsyncIterator[Spooled]:
        answer = await self._ask(
            host,
            "state_at",
            (room_id, event_id),
            lambda r: _whole(r.serving.state(self._name, room_id, event_id)),
        )
        yield Spooled(
            [_raw(item) for item in answer["pdus"]], [_raw(item) for item in answer["auth_chain"]], None
        )

    async def send_leave(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> None:
        await self._ask(
            host,
            "send_leave",
            (room_id, event_id, pdu),
            lambda r: r.resident.send_leave(self._name, room_id, event_id, copied(pdu)),
        )

    async def send_knock(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> Any:
        return await self._ask(
            host,
            "send_knock",
            (room_id, event_id, pdu),
            lambda r: r.resident.send_knock(self._name, room_id, event_id, copied(pdu)),
        )

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
            host,
            "invite",
            (room_id, event_id, version, pdu, stripped),
            lambda r: r.invites.receive(
                self._name, room_id, event_id, version, copied(pdu), copied(stripped)
            ),
        )

    async def policy_sign(self, host: str, pdu: JsonObject) -> Any:
        def none(_: Rooms) -> Any:
            raise unrecognized()

        return await self._ask(host, "policy_sign", (pdu,), none)

    async def exchange_third_party_invite(self, host: str, room_id: str, pdu: JsonObject) -> None:
        await self._ask(
            host,
            "exchange_third_party_invite",
            (room_id, pdu),
            lambda r: r.third_party.exchange(self._name, room_id, copied(pdu)),
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
            "get_missing_events",
            (room_id, earliest, latest),
            lambda r: _decoded(
                r.serving.missing_events(
                    self._name, room_id, earliest=earliest, latest=latest, limit=limit, min_depth=min_depth
                )
            ),
        )

    async def get_event(self, host: str, event_id: str) -> Any:
        return await self._ask(
            host, "get_event", (event_id,), lambda r: r.serving.event(self._name, event_id)
        )

    async def get_state_ids(self, host: str, room_id: str, event_id: str) -> Any:
        return await self._ask(
            host,
            "get_state_ids",
            (room_id, event_id),
            lambda r: _lists(r.serving.state_ids(self._name, room_id, event_id)),
        )

    async def get_state(self, host: str, room_id: str, event_id: str) -> Any:
        return await self._ask(
            host,
            "get_state",
            (room_id, event_id),
            lambda r: _lists(r.serving.state(self._name, room_id, event_id)),
        )

    async def get_event_auth(self, host: str, room_id: str, event_id: str) -> Any:
        async def chain(rooms: Rooms) -> Any:
            return (await _whole(rooms.serving.event_auth(self._name, room_id, event_id)))["auth_chain"]

        return await self._ask(host, "get_event_auth", (room_id, event_id), chain)

    async def backfill(self, host: str, room_id: str, event_ids: Sequence[str], limit: int) -> Any:
        return await self._ask(
            host,
            "backfill",
            (room_id, event_ids, limit),
            lambda r: _decoded(r.serving.backfill(self._name, room_id, event_ids, limit)),
        )

    async def timestamp_to_event(self, host: str, room_id: str, ts: int, direction: str) -> Any:
        return await self._ask(
            host,
            "timestamp_to_event",
            (room_id, ts, direction),
            lambda r: r.serving.nearest(self._name, room_id, ts, forwards=direction == "f"),
        )

    async def query_directory(self, host: str, alias: str) -> Any:
        return await self._ask(host, "query_directory", (alias,), lambda r: r.directory.resolve_local(alias))


def _raw(item: Any) -> bytes:
    return item if isinstance(item, bytes) else canonical.dumps(item)


async def _whole(answer: Awaitable[EventsAnswer]) -> Any:
    """A streamed answer, decoded."""
    return canonical.loads(b"".join([chunk async for chunk in (await answer).stream()]))


async def _lists(answer: Awaitable[EventsAnswer]) -> list[Any]:
    """The lists of a streamed answer, as the port has them."""
    return list((await _whole(answer)).values())


async def _decoded(answer: Awaitable[list[bytes]]) -> list[Any]:
    return [canonical.loads(item) for item in await answer]
