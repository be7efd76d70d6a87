# SPDX-License-Identifier: Apache-2.0
"""A web edge without a server behind it, reached over in-memory streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h11
import structlog
import trio
from trio.testing import memory_stream_pair
from werkzeug.datastructures import Headers

from minihs import config
from minihs.matrix.errors import unauthorized
from minihs.matrix.signatures import SigningKey
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.web.app import App
from minihs.web.http11 import Address
from minihs.web.route_modules import ROUTE_MODULES
from minihs.web.routing import Routes
from minihs.web.services import Services
from minihs.web.serving import Edge, Limits, Policy

PEER: Address = ("192.0.2.1", 40000)
ALICE = Requester(user_id="@alice:example.org", device_id="PHONE", token_id=1)


class FakeUsers:
    def requester_for_token(self, token: str, remote_address: str | None = None) -> Requester | None:
        return ALICE if token == "alices-token" else None


class FakeRequestAuth:
    """Believes a request whose `sig` is the word "good"; remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any]] = []

    async def authenticate(
        self, method: str, raw_uri: str, headers: Headers, content: Any, *, floats: bool | None = None
    ) -> str:
        self.seen.append((method, raw_uri, content))
        if 'sig="good"' not in headers["Authorization"]:
            raise unauthorized("The signature is wrong.")
        return "other.example"


class FakeClock:
    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms


def make_services(clock: FakeClock | None = None, **settings: Any) -> Services:
    checked = config.check(
        config.from_mapping({"server_name": "example.org", "data_dir": "/nonexistent", **settings}),
        Path("/nonexistent"),
    )
    parts = dict.fromkeys(Services.__dataclass_fields__, cast(Any, None))
    parts |= {
        "config": checked,
        "runtime": Runtime(clock=clock or FakeClock()),
        "signing_key": SigningKey.generate(bytes(32), "a_test"),
        "users": FakeUsers(),
        "request_auth": FakeRequestAuth(),
    }
    return Services(**parts)


def make_edge(
    routes: Routes | None = None,
    *,
    limits: Limits | None = None,
    services: Services | None = None,
) -> Edge:
    """An edge with the routes of the server and a test's own."""
    modules = list(ROUTE_MODULES)
    if routes is not None:
        modules.append(cast(Any, SimpleNamespace(routes=routes)))
    return Edge(App(services or make_services(), modules), limits)


class Response:
    def __init__(self, head: h11.Response, body: bytes) -> None:
        self.status = head.status_code
        self.headers = Headers([(name.decode(), value.decode("latin-1")) for name, value in head.headers])
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body[:200]!r}>"


def is_refusal(response: Response, status: int, errcode: str) -> bool:
    return response.status == status and response.json["errcode"] == errcode and "error" in response.json


class Visitor:
    """The client's end of a connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        """Send, whether or not the server still listens."""
        with suppress(trio.BrokenResourceError):
            await self.stream.send_all(data)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Any = b"",
        token: str | None = None,
    ) -> Response:
        """Send a well-formed request and read the response."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        fields = {"Host": "example.org", **(headers or {})}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        if body:
            fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return await self.response(method)

    async def response(self, method: str = "GET") -> Response:
        """Read one response, which must be whole."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        # What h11 believes we sent only matters for how it reads the answer (HEAD has no body).
        self._http.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._http.send(h11.EndOfMessage())
        head, body = None, bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return Response(head, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("the server closed without answering")

    async def is_closed(self) -> bool:
        """Wait for the server to close; False if it sends something instead."""
        try:
            return await self.stream.receive_some(1) == b""
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return True

    async def everything(self) -> bytes:
        """All that still comes until the server closes."""
        data = bytearray()
        try:
            while chunk := await self.stream.receive_some(65536):
                data += chunk
        except trio.BrokenResourceError:
            pass
        return bytes(data)

    async def hang_up(self) -> None:
        await self.stream.aclose()


class House:
    """An edge in a nursery, for as long as a test lasts."""

    def __init__(self, edge: Edge, nursery: trio.Nursery) -> None:
        self.edge = edge
        self._nursery = nursery

    def visit(self, peer: Address = PEER, policy: Policy | None = None) -> Visitor:
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self.edge.handle, theirs, peer, None, policy)
        return Visitor(ours)

    async def ask(self, method: str, target: str, **options: Any) -> Response:
        """One request on a connection of its own."""
        visitor = self.visit(options.pop("peer", PEER), options.pop("policy", None))
        try:
            return await visitor.request(method, target, **options)
        finally:
            await visitor.hang_up()

    async def until_nobody_is_left(self) -> None:
        for _ in range(1000):
            if "<Edge: 0 connections" in repr(self.edge):
                return
            await trio.sleep(0.01)
        raise AssertionError(f"after 10 s: {self.edge!r}")


@asynccontextmanager
async def open_house(routes: Routes | None = None, **options: Any) -> AsyncIterator[House]:
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    )
    async with trio.open_nursery() as nursery:
        yield House(make_edge(routes, **options), nursery)
        nursery.cancel_scope.cancel()
