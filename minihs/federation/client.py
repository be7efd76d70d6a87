# SPDX-License-Identifier: Apache-2.0
"""What one can ask another server (spec: server-server-api). One method per endpoint.

Every answer is from a stranger. Here only its outer shape is checked (an object, a list of strings), so that
callers can rely on the types; what the events in it are worth is for the caller to find out. Each call raises
one of `Unreachable`, `RemoteRefused`, `RemoteProtocolError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from minihs.federation import http
from minihs.federation.discovery import Discovery
from minihs.federation.pools import Pools
from minihs.federation.spool import BadAnswer, Spool, SpooledJoin, SpooledState
from minihs.federation.transport import Request, Transport, path
from minihs.matrix import canonical
from minihs.matrix.canonical import MAX_CARRIED_DEPTH, JsonObject
from minihs.matrix.federation_errors import RemoteProtocolError, RemoteRefused
from minihs.matrix.ids import is_event_id, is_room_id, is_server_name
from minihs.matrix.signatures import SigningKey
from minihs.runtime import Runtime

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"

KIB = 1024
MIB = 1024 * KIB

EVENT_BYTES = 256 * KIB
"""One event with its wrapping: 64 KiB, and whatever escapes blow it up to."""
EVENTS_BYTES = 32 * MIB
"""A page of events, or the ids of a large state."""
STATE_BYTES = 128 * MIB
SPOOL_BYTES = 512 * MIB

POLICY = 10.0
"""A policy server that takes longer holds up those who talk."""
SHORT = 20.0
LONG = 60.0
VERY_LONG = 600.0
"""A join of a large room: other servers take minutes to put the answer together."""


class FederationClient(Transport):
    def __init__(
        self,
        server_name: str,
        signing_key: SigningKey,
        runtime: Runtime,
        discovery: Discovery,
        pools: Pools,
        spool_folder: Path,
    ) -> None:
        super().__init__(server_name, signing_key, runtime, discovery, pools)
        self._spool_folder = spool_folder

    # -- getting into and out of rooms --

    async def make_join(self, host: str, room_id: str, user_id: str, versions: Collection[str]) -> JsonObject:
        query = [("ver", version) for version in versions]
        return await self.get_json(
            host, path(f"{V1}/make_join", room_id, user_id), query, max_bytes=EVENT_BYTES
        )

    @asynccontextmanager
    async def send_join(
        self, host: str, room_id: str, event_id: str, pdu: JsonObject, *, omit_members: bool = False
    ) -> AsyncIterator[SpooledJoin]:
        """The room's state and auth chain, on disk for as long as the `async with` lasts."""
        query = (("omit_members", "true"),) if omit_members else ()
        request = Request(
            "PUT", host, path(f"{V2}/send_join", room_id, event_id), query, canonical.encode(pdu)
        )
        async with self._spooled(request, Spool.parse_join) as join:
            yield join

    @asynccontextmanager
    async def state_at(self, host: str, room_id: str, event_id: str) -> AsyncIterator[SpooledState]:
        """The state before the event, and its auth chain, on disk for as long as the `async with` lasts."""
        request = Request("GET", host, path(f"{V1}/state", room_id), (("event_id", event_id),))
        async with self._spooled(request, Spool.parse_state) as state:
            yield state

    @asynccontextmanager
    async def _spooled[T](self, request: Request, parse: Callable[[Spool], T]) -> AsyncIterator[T]:
        spool = Spool(self._spool_folder)
        try:
            async with (
                self.stream(request, within=VERY_LONG) as response,
                aclosing(http.chunks(response, SPOOL_BYTES)) as chunks,
            ):
                async for chunk in chunks:
                    spool.write(chunk)
            try:
                answer = await self._runtime.threads.run(parse, spool)
            except BadAnswer as error:
                raise RemoteProtocolError(request.destination, str(error)) from error
            yield answer
        finally:
            spool.close()

    async def make_leave(self, host: str, room_id: str, user_id: str) -> JsonObject:
        return await self.get_json(host, path(f"{V1}/make_leave", room_id, user_id), max_bytes=EVENT_BYTES)

    async def send_leave(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> None:
        await self.put_json(host, path(f"{V2}/send_leave", room_id, event_id), pdu, max_bytes=EVENT_BYTES)

    async def make_knock(
        self, host: str, room_id: str, user_id: str, versions: Collection[str]
    ) -> JsonObject:
        query = [("ver", version) for version in versions]
        return await self.get_json(
            host, path(f"{V1}/make_knock", room_id, user_id), query, max_bytes=EVENT_BYTES
        )

    async def send_knock(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> JsonObject:
        return await self.put_json(
            host, path(f"{V1}/send_knock", room_id, event_id), pdu, max_depth=MAX_CARRIED_DEPTH
        )

    async def invite(
        self,
        host: str,
        room_id: str,
        event_id: str,
        version: str,
        pdu: JsonObject,
        stripped: Sequence[JsonObject],
    ) -> JsonObject:
        """The event as the invited server has signed it. Old servers know rooms of version 1 and 2 only, and
        invites of version 1 only."""
        content = {"event": pdu, "room_version": version, "invite_room_state": list(stripped)}
        try:
            answer = await self.put_json(
                host, path(f"{V2}/invite", room_id, event_id), content, within=LONG, max_bytes=EVENT_BYTES
            )
        except RemoteRefused as refusal:
            if version not in ("1", "2") or refusal.status not in (400, 404, 405):
                raise
            answer = await self._invite_v1(host, room_id, event_id, pdu, stripped)
        return _object(host, answer, "event")

    async def _invite_v1(
        self, host: str, room_id: str, event_id: str, pdu: JsonObject, stripped: Sequence[JsonObject]
    ) -> JsonObject:
        content = {**pdu, "unsigned": {"invite_room_state": list(stripped)}}
        request = Request(
            "PUT", host, path(f"{V1}/invite", room_id, event_id), content=canonical.encode(content)
        )
        answer = await self.any_json(request, within=LONG, max_bytes=EVENT_BYTES)
        if not isinstance(answer, list) or len(answer) != 2 or not isinstance(answer[1], dict):
            raise RemoteProtocolError(host, "answered the invite with something else than [200, {...}]")
        return answer[1]

    async def policy_sign(self, host: str, pdu: JsonObject) -> JsonObject:
        """Ask a policy server to sign an event."""
        return await self.post_json(
            host, "/_matrix/policy/v1/sign", pdu, within=POLICY, max_bytes=EVENT_BYTES
        )

    async def exchange_third_party_invite(self, host: str, room_id: str, pdu: JsonObject) -> None:
        await self.put_json(host, path(f"{V1}/exchange_third_party_invite", room_id), pdu)

    # -- events --

    async def send_transaction(self, host: str, txn_id: str, content: bytes, *, within: float) -> JsonObject:
        """PUT /send. `content` is canonical JSON. Tries even if the server could not be reached a moment
        ago."""
        return await self.put_bytes(host, path(f"{V1}/send", txn_id), content, within=within, max_bytes=MIB)

    async def get_missing_events(
        self,
        host: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int = 0,
    ) -> list[Any]:
        content = {
            "earliest_events": list(earliest),
            "latest_events": list(latest),
            "limit": limit,
            "min_depth": min_depth,
        }
        answer = await self.post_json(
            host,
            path(f"{V1}/get_missing_events", room_id),
            content,
            within=LONG,
            max_bytes=EVENTS_BYTES,
            max_depth=MAX_CARRIED_DEPTH,
        )
        return _list(host, answer, "events")

    async def get_event(self, host: str, event_id: str) -> Any:
        answer = await self.get_json(
            host,
            path(f"{V1}/event", event_id),
            within=SHORT,
            max_bytes=EVENT_BYTES,
            max_depth=MAX_CARRIED_DEPTH,
        )
        pdus = _list(host, answer, "pdus")
        if len(pdus) != 1:
            raise RemoteProtocolError(host, f"answered with {len(pdus)} events instead of one")
        return pdus[0]

    async def get_state_ids(self, host: str, room_id: str, event_id: str) -> tuple[list[str], list[str]]:
        """(ids of the state before the event, ids of its auth chain)"""
        answer = await self.get_json(
            host,
            path(f"{V1}/state_ids", room_id),
            [("event_id", event_id)],
            within=LONG,
            max_bytes=EVENTS_BYTES,
        )
        return _event_ids(host, answer, "pdu_ids"), _event_ids(host, answer, "auth_chain_ids")

    async def get_state(self, host: str, room_id: str, event_id: str) -> tuple[list[Any], list[Any]]:
        """(state before the event, its auth chain)"""
        answer = await self.get_json(
            host,
            path(f"{V1}/state", room_id),
            [("event_id", event_id)],
            within=VERY_LONG,
            max_bytes=STATE_BYTES,
            max_depth=MAX_CARRIED_DEPTH,
        )
        return _list(host, answer, "pdus"), _list(host, answer, "auth_chain")

    async def get_event_auth(self, host: str, room_id: str, event_id: str) -> list[Any]:
        return await self._get_events(host, path(f"{V1}/event_auth", room_id, event_id), (), "auth_chain")

    async def backfill(self, host: str, room_id: str, event_ids: Sequence[str], limit: int) -> list[Any]:
        query = [("v", event_id) for event_id in event_ids] + [("limit", str(limit))]
        return await self._get_events(host, path(f"{V1}/backfill", room_id), query, "pdus")

    async def _get_events(
        self, host: str, place: str, query: Sequence[tuple[str, str]], name: str
    ) -> list[Any]:
        """Some events, under that name in the answer."""
        answer = await self.get_json(
            host, place, query, within=LONG, max_bytes=EVENTS_BYTES, max_depth=MAX_CARRIED_DEPTH
        )
        return _list(host, answer, name)

    async def timestamp_to_event(self, host: str, room_id: str, ts: int, direction: str) -> tuple[str, int]:
        """(event id, its origin_server_ts)"""
        answer = await self.get_json(
            host,
            path(f"{V1}/timestamp_to_event", room_id),
            [("ts", str(ts)), ("dir", direction)],
            within=SHORT,
        )
        event_id, found_ts = answer.get("event_id"), answer.get("origin_server_ts")
        if not is_event_id(event_id) or type(found_ts) is not int:
            raise RemoteProtocolError(host, "answered without an event")
        return event_id, found_ts

    # -- questions about rooms, users and devices --

    async def query_directory(self, host: str, alias: str) -> tuple[str, list[str]]:
        """(room id, servers to join through)"""
        answer = await self.get_json(
            host, f"{V1}/query/directory", [("room_alias", alias)], within=SHORT, max_bytes=MIB
        )
        room_id = answer.get("room_id")
        if not is_room_id(room_id):
            raise RemoteProtocolError(host, "answered without a room id")
        return room_id, [server for server in _list(host, answer, "servers") if is_server_name(server)]

    async def query_profile(self, host: str, user_id: str, field: str | None = None) -> JsonObject:
        query = [("user_id", user_id)] + ([("field", field)] if field is not None else [])
        return await self.get_json(host, f"{V1}/query/profile", query, within=SHORT, max_bytes=EVENT_BYTES)

    async def public_rooms(self, host: str, content: JsonObject) -> JsonObject:
        return await self.post_json(host, f"{V1}/publicRooms", content, max_bytes=EVENTS_BYTES)

    async def hierarchy(self, host: str, room_id: str, *, suggested_only: bool = False) -> JsonObject:
        query = [("suggested_only", "true" if suggested_only else "false")]
        return await self.get_json(host, path(f"{V1}/hierarchy", room_id), query, max_depth=MAX_CARRIED_DEPTH)

    async def query_keys(self, host: str, device_keys: Mapping[str, Sequence[str]]) -> JsonObject:
        """End-to-end keys of the server's users: user id to device ids, none meaning all."""
        content = {"device_keys": {user: list(devices) for user, devices in device_keys.items()}}
        return await self.post_json(host, f"{V1}/user/keys/query", content, max_bytes=EVENTS_BYTES)

    async def claim_keys(self, host: str, one_time_keys: Mapping[str, Mapping[str, str]]) -> JsonObject:
        content = {"one_time_keys": {user: dict(devices) for user, devices in one_time_keys.items()}}
        return await self.post_json(host, f"{V1}/user/keys/claim", content, max_bytes=EVENTS_BYTES)

    async def user_devices(self, host: str, user_id: str) -> JsonObject:
        return await self.get_json(host, path(f"{V1}/user/devices", user_id), max_bytes=EVENTS_BYTES)

    # -- about the server itself --

    async def version(self, host: str) -> JsonObject:
        return await self.get_json(host, f"{V1}/version", within=SHORT, max_bytes=64 * KIB, signed=False)

    async def server_keys(self, host: str) -> JsonObject:
        """The server's own key document."""
        return await self.get_json(
            host, "/_matrix/key/v2/server", within=SHORT, max_bytes=64 * KIB, signed=False
        )

    async def query_notary(self, host: str, wanted: Mapping[str, Mapping[str, int]]) -> list[Any]:
        """Key documents of other servers: server to key ids to the time until which they should be valid."""
        content = {
            "server_keys": {
                server: {key_id: {"minimum_valid_until_ts": until} for key_id, until in keys.items()}
                for server, keys in wanted.items()
            }
        }
        answer = await self.post_json(
            host, "/_matrix/key/v2/query", content, within=SHORT, max_bytes=EVENTS_BYTES, signed=False
        )
        return _list(host, answer, "server_keys")

    async def run(self) -> None:
        """Keep connections until cancelled, then close them."""
        try:
            await trio.sleep_forever()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):  # closes sockets, waits for nobody
            await super().aclose()


def _list(host: str, answer: JsonObject, name: str) -> list[Any]:
    value = answer.get(name, [])
    if not isinstance(value, list):
        raise RemoteProtocolError(host, f"answered with {name} that is no list")
    return value


def _object(host: str, answer: JsonObject, name: str) -> JsonObject:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise RemoteProtocolError(host, f"answered without {name}")
    return value


def _event_ids(host: str, answer: JsonObject, name: str) -> list[str]:
    value = _list(host, answer, name)
    if not all(is_event_id(item) for item in value):
        raise RemoteProtocolError(host, f"answered with {name} that are no event ids")
    return value
