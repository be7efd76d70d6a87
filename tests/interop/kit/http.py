# SPDX-License-Identifier: Apache-2.0
"""A small HTTP/1.1 client on trio and h11: keep-alive, TLS, deadlines.

It parses strictly (h11 refuses what RFC 9110 forbids), so a homeserver that frames an answer wrongly
fails the test, and it is light enough that a benchmark measures the server and not its client.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

CHUNK = 65536


class BrokenConnection(Exception):
    """The other side could not be reached, went away, or spoke something that is not HTTP."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class _Connection:
    stream: trio.abc.Stream
    state: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT, 256 * 1024))
    used: bool = False

    async def next_event(self) -> Any:
        while True:
            event = self.state.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.state.receive_data(bytes(await self.stream.receive_some(CHUNK)))


class HttpClient:
    """Talks to one address. Idle connections are kept; a request that is cancelled closes its own."""

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, tls_name: str | None = None
    ) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self._tls_name = tls_name or host
        self._idle: list[_Connection] = []

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
        seconds: float = 60.0,
    ) -> Response:
        head = [("Host", f"{self.host}:{self.port}"), ("Content-Length", str(len(body))), *(headers or [])]
        request = h11.Request(method=method, target=target, headers=head)
        with trio.fail_after(seconds):
            while True:
                connection = self._idle.pop() if self._idle else await self._connect()
                try:
                    return await self._exchange(connection, request, body)
                except (trio.BrokenResourceError, h11.RemoteProtocolError, ssl.SSLError) as error:
                    # A kept connection may have been closed by the server while it lay idle: that says
                    # nothing about the request. A failure on a fresh one does.
                    if not connection.used:
                        raise BrokenConnection(f"{method} {target}: {error!r}") from error

    async def _connect(self) -> _Connection:
        try:
            tcp = await trio.open_tcp_stream(self.host, self.port)
            if self._tls is None:
                return _Connection(tcp)
            stream = trio.SSLStream(tcp, self._tls, server_hostname=self._tls_name, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except (OSError, trio.BrokenResourceError) as error:
            raise BrokenConnection(f"no connection to {self.host}:{self.port}: {error!r}") from error
        return _Connection(stream)

    async def _exchange(self, connection: _Connection, request: h11.Request, body: bytes) -> Response:
        kept = False
        try:
            data = connection.state.send(request)
            if body:
                data += connection.state.send(h11.Data(data=body))
            data += connection.state.send(h11.EndOfMessage())
            await connection.stream.send_all(data)
            response = await self._receive(connection)
            if connection.state.our_state is h11.DONE and connection.state.their_state is h11.DONE:
                connection.state.start_next_cycle()
                connection.used = True
                self._idle.append(connection)
                kept = True
            return response
        finally:
            if not kept:
                await trio.aclose_forcefully(connection.stream)

    async def _receive(self, connection: _Connection) -> Response:
        head: h11.Response | None = None
        parts: list[bytes] = []
        while True:
            event = await connection.next_event()
            match event:
                case h11.Response():
                    head = event
                case h11.Data():
                    parts.append(bytes(event.data))
                case h11.EndOfMessage() if head is not None:
                    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
                    return Response(head.status_code, headers, b"".join(parts))
                case h11.ConnectionClosed():
                    raise trio.BrokenResourceError("the server closed the connection")

    async def aclose(self) -> None:
        while self._idle:
            await trio.aclose_forcefully(self._idle.pop().stream)
