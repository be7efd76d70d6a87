# SPDX-License-Identifier: Apache-2.0
"""One connection, served: HTTP/1.1 by Hypercorn's parts under our own guard.

Hypercorn on trio as it comes lets one bad packet end the whole process, speaks protocols that can't be
switched off, waits for ever on a client that stops reading, and never closes an idle connection after its
first answer. So this module builds from its `TCPServer`, `H11Protocol` and `HTTPStream` a connection that

- contains its own failures, whatever they are;
- speaks HTTP/1.1 only: `Upgrade` is ignored, HTTP/2 is answered as the bad HTTP/1.1 that it is;
- is watched by one deadline instead of a task for each request: idle, or sending its headers, too long, it is
  closed;
- runs each handler in one task, which it cancels itself when the client hangs up;
- sends in slices, each with its own deadline, so that slow readers are served and dead ones dropped;
- answers in one send, head and body together, when the answer is short;
- closes with care: unread input is drained for a moment, or a reset would destroy the answer on its way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.logging import Logger
from hypercorn.protocol.events import (
    Body,
    EndBody,
    Request,
    StreamClosed,
)
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.task_group import _handle as run_app
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, ConnectionState, Scope

from minihs.web.body import Inbox

log = structlog.get_logger(__name__)

type Address = tuple[str, int] | None

RECEIVE_BYTES = 64 * 1024
SEND_SLICE_BYTES = 64 * 1024

HANDSHAKE_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 75.0
"""How long a connection may do nothing between requests. Longer than most clients' own patience."""
HEADER_SECONDS = 20.0
"""From the first byte of a request to the end of its headers."""
SEND_SECONDS = 30.0
"""For one slice: 64 KiB in 30 s is less than any line that is still alive."""
LINGER_SECONDS = 2.0
CLOSE_SECONDS = 0.1
"""Instead of the former, when the server shuts down."""
LINGER_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024
"""Of a request line and headers that do not arrive at once."""
MAX_HEADERS = 200
CORK_BYTES = 16 * 1024
"""A body chunk up to this size waits for the end of the answer, to leave in one packet with the head."""

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
"""How a connection that has ended shows itself. Nothing to log."""


class EdgeLog(Logger):
    """Hypercorn's log, in ours: what escapes the application. The application itself logs the requests."""

    def __init__(self, _: HypercornConfig) -> None: ...

    async def access(self, *_: Any) -> None: ...

    async def exception(self, message: str, *_: Any, **__: Any) -> None:
        log.exception(message)


class EdgeConfig(HypercornConfig):
    """What Hypercorn's parts are to know; they never open sockets or log files here."""

    h11_max_incomplete_size = MAX_HEADER_BYTES
    keep_alive_max_requests = 1_000_000
    include_server_header = False
    logger_class: type[Logger] = EdgeLog

    def __init__(self) -> None:
        super().__init__()
        self._headers: list[tuple[bytes, bytes]] = []
        self._headers_until = 0.0

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """The same for a second: they hold the date."""
        now = time.time()
        if not self._headers_until - 1 <= now < self._headers_until:
            self._headers = super().response_headers(protocol)
            self._headers_until = now // 1 + 1
        return self._headers


class Connection(TCPServer):
    """Serves one stream until it ends."""

    def __init__(
        self,
        app: Any,
        config: EdgeConfig,
        context: WorkerContext,
        state: dict[str, Any],
        stream: trio.abc.Stream,
        *,
        peer: Address,
        local: Address,
    ) -> None:
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]  # any Stream will do
        self._http: Http11
        self.peer = peer
        self.local = local
        self._reading = trio.CancelScope()
        """Its deadline closes a connection that is idle; a busy one has none."""
        self._shaking_hands = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._cut_off = float("inf")
        """When the server shuts down: no send goes on for longer."""
        self._busy = False
        self._close_wanted = False
        self._broken = False

    async def run(self) -> None:
        try:
            if await self._handshake():
                await self._serve()
                await self._close()
        except* GONE:
            pass
        except* Exception:
            log.exception("a connection failed", peer=self.peer)
        finally:
            await trio.aclose_forcefully(self.stream)

    def wind_up(self, cut_off: float) -> None:
        """The server shuts down: close now if idle, else after the answer under way, by `cut_off`."""
        self._cut_off = cut_off
        self._sending.deadline = min(self._sending.deadline, cut_off)
        if not self._busy:
            self._shaking_hands.cancel()
            self._reading.cancel()

    async def _handshake(self) -> bool:
        if isinstance(self.stream, trio.SSLStream):
            self._shaking_hands.deadline = trio.current_time() + HANDSHAKE_SECONDS
            with self._shaking_hands:
                await self.stream.do_handshake()
        return not self._shaking_hands.cancelled_caught

    async def _serve(self) -> None:
        async with Handlers() as task_group:
            self.protocol = self._http = Http11(  # type: ignore[assignment]  # in place of Hypercorn's wrapper
                self.app,
                self.config,
                self.context,
                task_group,
                ConnectionState(self.state),
                isinstance(self.stream, trio.SSLStream),
                self.peer,
                self.local,
                self.protocol_send,
            )
            self._set_idle()
            with self._reading:
                await self._read_data()
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        headers_begun = False
        while True:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            await self.protocol.handle(RawData(bytes(data)))
            if not data or self._close_wanted:
                return
            if self._busy:
                headers_begun = False
            elif not headers_begun:
                headers_begun = True
                self._reading.deadline = min(self._reading.deadline, trio.current_time() + HEADER_SECONDS)

    async def protocol_send(self, event: Event) -> None:
        # `Updated` and `Closed` come from within the app's task, which is cancelled as soon as its answer is
        # out: no await here, or the connection would never learn that it is idle.
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._set_idle() if event.idle else self._set_busy()
        elif isinstance(event, Closed):
            self._close_wanted = True
            self._reading.cancel()

    def _set_idle(self) -> None:
        self._busy = False
        self._reading.deadline = trio.current_time() + KEEP_ALIVE_SECONDS

    def _set_busy(self) -> None:
        self._busy = True
        self._reading.deadline = float("inf")

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            self.send_lock.acquire_nowait()  # it is free; `async with` would go once round the loop first
        except trio.WouldBlock:
            await self.send_lock.acquire()
        try:
            for start in range(0, len(view), SEND_SLICE_BYTES):
                if self._broken:
                    return
                await self._send_slice(view[start : start + SEND_SLICE_BYTES])
        finally:
            self.send_lock.release()

    def _send_now(self, data: memoryview) -> int:
        """How much a plain socket takes without waiting: mostly all of a short answer, and then there is no
        need for a deadline, nor to go round the loop."""
        if not isinstance(self.stream, trio.SocketStream):
            return 0
        try:
            return os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            self._broken = self._close_wanted = True
            self._reading.cancel()
            return len(data)

    async def _send_slice(self, data: memoryview) -> None:
        data = data[self._send_now(data) :]
        if not data:
            return
        # Shielded, because half a slice would be garbage to the client; the deadline bounds it.
        deadline = min(trio.current_time() + SEND_SECONDS, self._cut_off)
        self._sending = trio.CancelScope(deadline=deadline, shield=True)
        try:
            with self._sending:
                await self.stream.send_all(data)
        except GONE:
            self._broken = True
        if self._broken or self._sending.cancelled_caught:
            self._broken = self._close_wanted = True
            self._reading.cancel()

    async def _close(self) -> None:
        """Close so that the last answer arrives: for a moment, what the peer still sends is dropped."""
        patience = CLOSE_SECONDS if self.context.terminated.is_set() else LINGER_SECONDS
        with trio.move_on_after(patience, shield=True):
            if self._input_left and not self.context.terminated.is_set():
                if hasattr(self.stream, "send_eof"):
                    await self.stream.send_eof()
                left = LINGER_BYTES
                while left > 0 and (data := await self.stream.receive_some(RECEIVE_BYTES)):
                    left -= len(data)
            await self.stream.aclose()

    @property
    def _input_left(self) -> bool:
        """Whether the peer may be in the middle of sending something that we won't read."""
        return self._close_wanted and self._http.connection.their_state in {h11.SEND_BODY, h11.ERROR}


class Handlers(TaskGroup):
    """The tasks of one connection's handlers: one for each request, cancelled when the client hangs up."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        inbox = Inbox()

        async def answer(message: ASGISendEvent | None) -> None:
            inbox.close()  # our handlers answer when they have read what they want
            await send(message)

        async def put(message: ASGIReceiveEvent) -> None:
            if message["type"] == "http.disconnect" and self._nursery is not None:
                self._nursery.cancel_scope.cancel()  # without its client, the connection is over as well
            else:
                await inbox.put(message)

        self.spawn(run_app, app, config, scope, inbox.take, answer, refuse_threads, refuse_threads)
        return put


def refuse_threads(*_: Any) -> Any:
    """Hypercorn offers threads to WSGI applications; ours is none."""
    raise NotImplementedError


class Http11(H11Protocol):
    """HTTP/1.1 and nothing else; puts the head and the body of a short answer into one send."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._corked = bytearray()

    async def _check_protocol(self, event: h11.Request) -> None:
        """No HTTP/2, neither by upgrade nor by prior knowledge."""

    async def _create_stream(self, request: h11.Request) -> None:
        target = origin_form(request.target)
        status = refusal_of(request, target)
        if status is not None or target is None:
            await self._send_error_response(status or 400)
            await self.send(Closed())
            return
        stream = Exchange(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
            flush=self.flush,
        )
        self.stream = stream
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=target,
                state=ConnectionState({**self.connection_state, "target": target}),
            )
        )
        self.keep_alive_requests += 1

    async def stream_send(self, event: StreamEvent) -> None:
        await super().stream_send(event)
        if isinstance(event, EndBody) or (isinstance(event, Body) and len(self._corked) > CORK_BYTES):
            await self.flush()

    async def _send_h11_event(self, event: Any) -> None:
        if isinstance(event, h11.Response) and self.connection.their_state is h11.SEND_BODY:
            # What is left of the request won't be read. A client that doesn't know would send its next
            # request behind it, and lose that.
            headers = [*event.headers.raw_items(), (b"connection", b"close")]
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        self._corked += data or b""
        if isinstance(event, h11.InformationalResponse | h11.EndOfMessage):
            await self.flush()

    async def flush(self) -> None:
        data = bytes(self._corked)
        self._corked.clear()
        if data:
            await self.send(RawData(data))


class Exchange(HTTPStream):
    """One request and its answer."""

    def __init__(self, *arguments: Any, flush: Callable[[], Awaitable[None]]) -> None:
        super().__init__(*arguments)
        self._flush = flush

    async def handle(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed) and self.state is ASGIHTTPState.CLOSED:
            # The answer is complete. Telling the app that its client went would only cancel its last steps.
            self.closed = True
            return
        await super().handle(event)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        await super().app_send(message)
        if message is not None and message["type"] == "http.response.body" and message.get("more_body"):
            await self._flush()


def origin_form(target: bytes) -> bytes | None:
    """Path and query of a request target; None for what we don't serve (CONNECT, other schemes)."""
    if target.startswith(b"/") or target == b"*":
        return target
    for scheme in (b"http://", b"https://"):
        if target.lower().startswith(scheme):
            slash = target.find(b"/", len(scheme))
            return target[slash:] if slash > 0 else b"/"
    return None


def refusal_of(request: h11.Request, target: bytes | None) -> int | None:
    """The status for requests that are not taken at all."""
    if request.http_version not in {b"1.0", b"1.1"}:
        return 505
    names = {name for name, _ in request.headers}
    if target is None or {b"transfer-encoding", b"content-length"} <= names:
        return 400  # two lengths are how requests are smuggled past proxies (RFC 9112, 6.3)
    if len(request.headers) > MAX_HEADERS:
        return 431
    return None
