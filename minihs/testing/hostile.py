# SPDX-License-Identifier: Apache-2.0
"""A peer that follows a script: it signs anything, answers anything, and remembers what it was asked.

    peer = ScriptedPeer(internet, "evil.test")
    peer.on("GET", "/_matrix/federation/v1/make_join/", {"room_version": "12", "event": {}})
    status, answer = await peer.request("GET", "one.test", "/_matrix/federation/v1/version")

What nothing was scripted for gets 404 M_UNRECOGNIZED, but for the key document, which is right unless
changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import h11
import httpcore2
import trio

from minihs.federation import http, x_matrix
from minihs.federation.addresses import AddressPolicy
from minihs.federation.connections import Connections
from minihs.federation.dial import Dialler, Target
from minihs.matrix import canonical, unpadded
from minihs.matrix.canonical import JsonObject
from minihs.matrix.ids import parse_server_name
from minihs.matrix.signatures import SigningKey, sign_json
from minihs.runtime import Clock
from minihs.testing.clock import SeededRandom, VirtualClock
from minihs.testing.internet import Internet, SocketAddress

KEY_PATH = "/_matrix/key/v2/server"
MAX_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A request that came."""

    method: str
    uri: str
    headers: dict[str, str]
    body: bytes
    peer: SocketAddress

    @property
    def json(self) -> Any:
        return canonical.loads(self.body) if self.body else None

    @property
    def path(self) -> str:
        return self.uri.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer, down to breaking the protocol."""

    status: int = 200
    json: Any = field(default_factory=dict)
    body: bytes | None = None
    """In place of the JSON."""
    headers: Sequence[tuple[str, str]] = ()
    delay: float = 0.0
    """Seconds to wait before answering."""
    raw: bytes | None = None
    """Sent as it is instead of an HTTP response; then the connection is closed."""
    endless: bool = False
    """Send the body again and again, until nobody listens."""
    close: bool = False
    """Close the connection after the answer without saying so."""


type Answer = Reply | JsonObject | list[Any]
type Script = Answer | Callable[[Received], Answer | Awaitable[Answer]]


class ScriptedPeer:
    """A server as far as others can tell. Listens on 8448 of a host of its own name."""

    def __init__(
        self,
        internet: Internet,
        name: str,
        *,
        key: SigningKey | None = None,
        clock: Clock | None = None,
        port: int | None = None,
    ) -> None:
        parsed = parse_server_name(name)
        assert parsed is not None, name
        self.name = name
        self.host = internet.host(parsed.host)
        self.key = key or SigningKey.generate(SeededRandom(name).token_bytes(32), "scripted")
        self.clock: Clock = clock or VirtualClock()
        self.requests: list[Received] = []
        self._scripts: list[tuple[str, str, Script]] = []
        self._pool_dialler = Dialler(
            self.host.network, self.host.resolver, AddressPolicy(), internet.client_tls()
        )
        self.host.listen(port or parsed.port or 8448, self.serve)

    # -- answering --

    def on(self, method: str, path_prefix: str, script: Script) -> None:
        """Answer requests whose path begins like this. What was said last counts."""
        self._scripts.insert(0, (method, path_prefix, script))

    def received(self, path_prefix: str = "/") -> list[Received]:
        return [request for request in self.requests if request.path.startswith(path_prefix)]

    def key_document(self, **changes: Any) -> JsonObject:
        """The peer's keys, signed; with `changes` made before signing."""
        document: JsonObject = {
            "server_name": self.name,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key_base64}},
            "old_verify_keys": {},
            "valid_until_ts": self.clock.now_ms() + 24 * 3600 * 1000,
            **changes,
        }
        return sign_json(document, self.name, self.key)

    async def serve(self, stream: trio.abc.Stream, peer: SocketAddress, local: SocketAddress) -> None:
        """Handle one connection (a `Handler` of the internet)."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
        try:
            while await self._serve_one(connection, stream, peer):
                connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return

    async def _serve_one(
        self, connection: h11.Connection, stream: trio.abc.Stream, peer: SocketAddress
    ) -> bool:
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                assert len(body) <= MAX_BODY
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        received = Received(
            request.method.decode(),
            request.target.decode(),
            {name.decode().lower(): value.decode("latin-1") for name, value in request.headers},
            bytes(body),
            peer,
        )
        self.requests.append(received)
        return await self._answer(connection, stream, await self._scripted(received))

    async def _scripted(self, received: Received) -> Reply:
        for method, prefix, script in self._scripts:
            if method == received.method and received.path.startswith(prefix):
                answer: Any = script(received) if callable(script) else script
                if inspect.isawaitable(answer):
                    answer = await answer
                return answer if isinstance(answer, Reply) else Reply(json=answer)
        if received.method == "GET" and received.path == KEY_PATH:
            return Reply(json=self.key_document())
        return Reply(404, {"errcode": "M_UNRECOGNIZED", "error": "Not in the script."})

    async def _answer(self, connection: h11.Connection, stream: trio.abc.Stream, reply: Reply) -> bool:
        await trio.sleep(reply.delay)
        if reply.raw is not None:
            await stream.send_all(reply.raw)
            return False
        body = canonical.dumps(reply.json) if reply.body is None else reply.body
        fields = [("Content-Type", "application/json"), *reply.headers]
        if not reply.endless:
            fields.append(("Content-Length", str(len(body))))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        head = h11.Response(status_code=reply.status, headers=headers)
        await stream.send_all(connection.send(head) or b"")
        while True:
            await stream.send_all(connection.send(h11.Data(data=body)) or b"")
            if not reply.endless:
                break
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        return not reply.close and connection.our_state is h11.DONE and connection.their_state is h11.DONE

    # -- asking --

    def authorization(
        self, method: str, destination: str, uri: str, content: Any = None, *, key: SigningKey | None = None
    ) -> str:
        """The X-Matrix header for a request."""
        key = key or self.key
        message = x_matrix.signed_bytes(
            method=method,
            uri=uri,
            origin=self.name,
            destination=destination,
            content=None if content is None else canonical.encode(content),
        )
        return x_matrix.format_header(
            origin=self.name,
            destination=destination,
            key_id=key.key_id,
            signature=unpadded.encode(key.sign(message)),
        )

    async def request(
        self,
        method: str,
        destination: str,
        uri: str,
        content: Any = None,
        *,
        headers: Sequence[tuple[str, str]] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, Any]:
        """Ask a server: status and JSON (None if it is none). Signed, unless `headers` says otherwise.

        `body` is sent in place of the (signed) content.
        """
        name = parse_server_name(destination)
        assert name is not None, destination
        if headers is None:
            headers = [("Authorization", self.authorization(method, destination, uri, content))]
        if body is None and content is not None:
            body = canonical.encode(content)
        if body is not None:
            headers = [
                *headers,
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
            ]
        target = Target(name.host, name.port or 8448)
        pool = Connections(self._pool_dialler, lambda: [target], most=1)
        url = httpcore2.URL(scheme="https", host=name.host, port=target.port, target=uri)
        try:
            async with http.exchange(pool, method, url, [("Host", destination), *headers], body) as response:
                answer = await http.read_body(response, MAX_BODY)
        finally:
            with trio.CancelScope(shield=True):
                await pool.aclose()
        try:
            return response.status, canonical.loads(answer)
        except ValueError:
            return response.status, None
