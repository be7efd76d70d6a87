# SPDX-License-Identifier: Apache-2.0
"""A homeserver without a database: it answers other servers with scripted rooms and keeps what it is
sent.

It is the far side of the benchmark and of the crash test. Names end in `localhost:PORT`; its key is the
one with which `minihs.testing.events.RoomFactory` signs for that name, so rooms made there can be served
here as they are.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import h11
import trio

from minihs.matrix import canonical, unpadded
from minihs.matrix.event import Event
from minihs.matrix.room_versions import RoomVersion
from minihs.matrix.signatures import sign_json
from minihs.testing.events import signing_key_of
from tests.interop.kit.authority import Authority
from tests.interop.kit.homeserver import Homeserver
from tests.interop.kit.hosted import HostedRoom
from tests.interop.kit.http import HttpClient, Response
from tests.interop.kit.past import Past
from tests.interop.kit.ports import free_port

type JsonObject = dict[str, Any]
type Answer = tuple[int, bytes]
FAR_FUTURE_MS = 4_000_000_000_000
V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"
NOT_FOUND: Answer = (404, b'{"errcode":"M_NOT_FOUND","error":"The peer does not know that."}')


class Refused(Exception):
    """The homeserver under test answered a federation request with something else than 200."""


@dataclass(frozen=True, slots=True)
class Transaction:
    txn_id: str
    body: bytes

    @property
    def pdus(self) -> list[JsonObject]:
        return list(json.loads(self.body)["pdus"])


@dataclass
class Peer:
    authority: Authority
    port: int = field(default_factory=free_port)
    transactions: list[Transaction] = field(default_factory=list)
    rooms: dict[str, HostedRoom] = field(default_factory=dict)
    pasts: dict[str, Past] = field(default_factory=dict)  # room -> answers to state, backfill and the like
    known_versions: dict[str, RoomVersion] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)  # answers to /event and /get_missing_events
    on_transaction: Callable[[Transaction], Awaitable[int]] | None = None  # the status to answer with

    def __post_init__(self) -> None:
        self._arrived = trio.Event()
        self._clients: dict[int, HttpClient] = {}
        self._txn = 0

    @property
    def server_name(self) -> str:
        return f"localhost:{self.port}"

    def host(self, room: HostedRoom) -> None:
        self.rooms[room.room_id] = room
        self.pasts[room.room_id] = room.past
        self.known_versions[room.room_id] = room.version

    # -- asking

    def authorization(self, method: str, target: str, destination: str, content: JsonObject | None) -> str:
        key = signing_key_of(self.server_name)
        request: JsonObject = {
            "method": method,
            "uri": target,
            "origin": self.server_name,
            "destination": destination,
        }
        if content is not None:
            request["content"] = content
        signature = sign_json(request, self.server_name, key)["signatures"][self.server_name][key.key_id]
        parameters = {
            "origin": self.server_name,
            "destination": destination,
            "key": key.key_id,
            "sig": signature,
        }
        return "X-Matrix " + ",".join(f'{name}="{value}"' for name, value in parameters.items())

    async def request(
        self,
        server: Homeserver,
        method: str,
        target: str,
        content: JsonObject | None = None,
        *,
        seconds: float = 120,
    ) -> Response:
        http = self._clients.get(server.place.federation_port)
        if http is None:
            http = self._clients[server.place.federation_port] = server.federation_http()
        headers = [("Authorization", self.authorization(method, target, server.server_name, content))]
        body = b""
        if content is not None:
            headers.append(("Content-Type", "application/json"))
            body = canonical.encode(content)
        return await http.request(method, target, headers=headers, body=body, seconds=seconds)

    async def ask(
        self,
        server: Homeserver,
        method: str,
        target: str,
        content: JsonObject | None = None,
        *,
        seconds: float = 120,
    ) -> JsonObject:
        response = await self.request(server, method, target, content, seconds=seconds)
        if response.status != 200:
            raise Refused(f"{method} {target}: {response.status} {response.body[:500]!r}")
        answer = response.json()
        assert isinstance(answer, dict), answer
        return answer

    def transaction(self, pdus: list[Event], edus: list[JsonObject] | None = None) -> tuple[str, JsonObject]:
        """A new transaction id, and the body to send under it."""
        self._txn += 1
        body: JsonObject = {
            "origin": self.server_name,
            "origin_server_ts": 1_700_000_000_000 + self._txn,
            "pdus": [event.json for event in pdus],
        }
        return f"t{self._txn}", body | ({"edus": edus} if edus else {})

    async def send(
        self, server: Homeserver, pdus: list[Event], edus: list[JsonObject] | None = None
    ) -> JsonObject:
        """One transaction; what the server says of each PDU. Any error in it raises."""
        txn_id, body = self.transaction(pdus, edus)
        answer = await self.ask(server, "PUT", f"{V1}/send/{txn_id}", body)
        errors = {event_id: said for event_id, said in answer.get("pdus", {}).items() if said}
        if errors:
            raise Refused(f"PDUs refused: {errors}")
        return answer

    # -- answering

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        context = self.authority.server_context()
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")

        async def handle(stream: trio.SocketStream) -> None:
            await self._connection(stream, context)

        task_status.started()
        await trio.serve_listeners(handle, listeners)

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def wait_until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Looks again after each transaction that comes in."""
        with trio.fail_after(seconds):
            while not holds():
                await self._arrived.wait()

    def received_ids(self) -> list[str]:
        """Events that came by /send, in order; a transaction that was repeated counts once."""
        once = {transaction.txn_id: transaction for transaction in self.transactions}
        return [event_id for transaction in once.values() for event_id in self.ids_in(transaction)]

    def event_received(self, event_id: str) -> Event:
        for transaction in self.transactions:
            for pdu in transaction.pdus:
                if (version := self.known_versions.get(pdu.get("room_id", ""))) is not None:
                    event = Event.from_wire(pdu, version)
                    if event.event_id == event_id:
                        return event
        raise KeyError(event_id)

    def ids_in(self, transaction: Transaction) -> list[str]:
        known = self.known_versions
        return [
            Event.from_wire(pdu, known[pdu["room_id"]]).event_id
            for pdu in transaction.pdus
            if pdu.get("room_id") in known
        ]

    async def _connection(self, raw: trio.SocketStream, context: ssl.SSLContext) -> None:
        stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        state = h11.Connection(h11.SERVER, 256 * 1024)
        try:
            while True:
                request, body = await _read_request(stream, state)
                if request is None:
                    return
                status, answer = await self._answer(request.method.decode(), request.target.decode(), body)
                head = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
                data = state.send(h11.Response(status_code=status, headers=head)) or b""
                data += state.send(h11.Data(data=answer)) or b""
                data += state.send(h11.EndOfMessage()) or b""
                await stream.send_all(data)
                if state.our_state is not h11.DONE or state.their_state is not h11.DONE:
                    return
                state.start_next_cycle()
        except* (trio.BrokenResourceError, h11.RemoteProtocolError, ssl.SSLError, OSError):
            pass  # the server under test was killed, or hung up
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, method: str, target: str, body: bytes) -> Answer:
        path, _, asked = target.partition("?")
        query = parse_qs(asked)
        parts = [unquote(part) for part in path.split("/")[2:]]
        match method, *parts:
            case "GET", "key", "v2", "server", *_:
                return _json(self._keys())
            case "GET", "federation", "v1", "version":
                return _json({"server": {"name": "peer", "version": "1"}})
            case "PUT", "federation", "v1", "send", txn_id:
                return await self._take(Transaction(txn_id, body))
            case "GET", "federation", "v1", "make_join", room_id, user_id if room_id in self.rooms:
                return _json(self.rooms[room_id].template(user_id))
            case "PUT", "federation", "v2", "send_join", room_id, _ if room_id in self.rooms:
                omit = query.get("omit_members") == ["true"]
                return 200, self.rooms[room_id].send_join(
                    json.loads(body), self.server_name, omit_members=omit
                )
            case "GET", "federation", "v1", "event", event_id if (event := self._event(event_id)) is not None:
                return _json({"origin": self.server_name, "pdus": [event.json]})
            case "POST", "federation", "v1", "get_missing_events", _:
                return _json({"events": self._missing(json.loads(body))})
            case "GET", "federation", "v1", verb, room_id, *rest if room_id in self.pasts:
                return self._tell_past(self.pasts[room_id], verb, rest, query)
            case "GET", "federation", "v1", "query", "profile":
                return _json({"displayname": "somebody"})
            case "GET", "federation", "v1", "user", "devices", user_id:
                return _json({"user_id": user_id, "stream_id": 1, "devices": []})
            case "POST", "federation", "v1", "user", "keys", "query":
                return _json({"device_keys": {}})
        return NOT_FOUND

    def _event(self, event_id: str) -> Event | None:
        known = [self.events, *(past.events for past in self.pasts.values())]
        return next((events[event_id] for events in known if event_id in events), None)

    def _tell_past(self, past: Past, verb: str, rest: list[str], query: dict[str, list[str]]) -> Answer:
        match verb, *rest:
            case ["state"]:
                return 200, past.state(query["event_id"][0])
            case ["state_ids"]:
                return _json(past.state_ids(query["event_id"][0]))
            case ["event_auth", event_id] if event_id in past.events:
                return _json(past.auth_of(event_id))
            case ["backfill"]:
                found = past.before(query["v"], int(query["limit"][0]))
                return _json({"origin": self.server_name, "origin_server_ts": 0, "pdus": found})
        return NOT_FOUND

    async def _take(self, transaction: Transaction) -> Answer:
        status = await self.on_transaction(transaction) if self.on_transaction is not None else 200
        if status != 200:
            return status, b'{"errcode":"M_UNKNOWN","error":"The peer was told to refuse."}'
        self.transactions.append(transaction)
        self._arrived.set()
        self._arrived = trio.Event()
        return _json({"pdus": {}})

    def _missing(self, request: JsonObject) -> list[JsonObject]:
        """Breadth first from the latest events back to what the asker has, oldest first."""
        have: set[str] = set(request.get("earliest_events", []))
        found: dict[str, Event] = {}
        edge = [event_id for event_id in request.get("latest_events", []) if event_id in self.events]
        limit = int(request.get("limit", 10))
        while edge and len(found) < limit:
            following = []
            for event_id in edge:
                for prev in self.events[event_id].prev_events:
                    if prev in self.events and prev not in have and prev not in found and len(found) < limit:
                        found[prev] = self.events[prev]
                        following.append(prev)
            edge = following
        return [event.json for event in reversed(found.values())]

    def _keys(self) -> JsonObject:
        key = signing_key_of(self.server_name)
        document: JsonObject = {
            "server_name": self.server_name,
            "valid_until_ts": FAR_FUTURE_MS,
            "verify_keys": {key.key_id: {"key": unpadded.encode(key.verify_key)}},
            "old_verify_keys": {},
        }
        return sign_json(document, self.server_name, key)


async def _read_request(stream: trio.abc.Stream, state: h11.Connection) -> tuple[h11.Request | None, bytes]:
    request: h11.Request | None = None
    parts: list[bytes] = []
    while True:
        event = state.next_event()
        match event:
            case h11.NEED_DATA:
                state.receive_data(bytes(await stream.receive_some(65536)))
            case h11.Request():
                request = event
            case h11.Data():
                parts.append(bytes(event.data))
            case h11.EndOfMessage():
                return request, b"".join(parts)
            case _:
                return None, b""


def _json(value: JsonObject) -> Answer:
    return 200, canonical.dumps(value)
