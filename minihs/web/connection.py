# SPDX-License-Identifier: Apache-2.0
"""One connection, served: Hypercorn's `TCPServer` under our own guard.

Hypercorn on trio as it comes lets one bad packet end the whole process, speaks protocols that can't be
switched off, waits for ever on a client that stops reading, and never closes an idle connection after its
first answer. So this module makes of its `TCPServer` a connection that

- contains its own failures, whatever they are;
- speaks HTTP/1.1 only (`http11.py`);
- is watched by one deadline instead of a task for each request: idle, or sending its headers, too long, it is
  closed;
- sends in slices, each with its own deadline, so that slow readers are served and dead ones dropped;
- closes with care: unread input is drained for a moment, or a reset would destroy the answer on its way.
"""

from __future__ import annotations

import os
from typing import Any

import structlog
import trio
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from minihs.web.http11 import Address, EdgeConfig, Handlers, Http11

log = structlog.get_logger(__name__)

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

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
"""How a connection that has ended shows itself. Nothing to log."""


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
        self._edge_config = config
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
        self._headers_begun = False
        """Of a request that is not whole, some has come, and its deadline is set."""
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
        async with Handlers() as handlers:
            self._http = Http11(
                self,
                handlers,
                self.app,
                self._edge_config,
                self.context,
                self.state,
                scheme="https" if isinstance(self.stream, trio.SSLStream) else "http",
            )
            self.set_idle()
            with self._reading:
                await self._read_data()
            self._http.close()

    async def _read_data(self) -> None:
        while True:
            data = await self._receive()
            await self._http.receive(data)
            if not data or self._close_wanted:
                return
            if not self._busy and not self._headers_begun and self._http.has_begun:
                self._headers_begun = True
                self._reading.deadline = min(self._reading.deadline, trio.current_time() + HEADER_SECONDS)

    async def _receive(self) -> bytes:
        """What came; b"": the end. At a plain socket we wait before we try, not after: what came before was
        taken, so there is mostly nothing yet."""
        if not isinstance(self.stream, trio.SocketStream):
            return bytes(await self.stream.receive_some(RECEIVE_BYTES))
        number = self.stream.socket.fileno()
        while True:
            await trio.lowlevel.wait_readable(number)
            try:
                return os.read(number, RECEIVE_BYTES)
            except BlockingIOError:  # somebody's checksum was wrong, say
                continue

    def set_busy(self) -> None:
        """A request has begun."""
        self._busy = True
        self._headers_begun = False
        self._reading.deadline = float("inf")

    def set_idle(self) -> None:
        """It is answered, and another may come."""
        self._busy = False
        self._reading.deadline = trio.current_time() + KEEP_ALIVE_SECONDS

    def end(self) -> None:
        """Nothing comes after what was sent."""
        self._close_wanted = True
        self._reading.cancel()

    async def send(self, data: bytes) -> None:
        """Returns when all is on its way, or the peer is gone."""
        view = memoryview(data)
        if not self.send_lock.locked():
            view = view[self._send_now(view) :]
            if not view:
                return
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
        if self._broken:
            return len(data)
        if not isinstance(self.stream, trio.SocketStream):
            return 0
        try:
            return os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            self._broken = True
            self.end()
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
            self._broken = True
            self.end()

    async def _close(self) -> None:
        """Close so that the last answer arrives: for a moment, what the peer still sends is dropped."""
        patience = CLOSE_SECONDS if self.context.terminated.is_set() else LINGER_SECONDS
        with trio.move_on_after(patience, shield=True):
            if self._close_wanted and self._http.input_left and not self.context.terminated.is_set():
                if hasattr(self.stream, "send_eof"):
                    await self.stream.send_eof()
                left = LINGER_BYTES
                while left > 0 and (data := await self.stream.receive_some(RECEIVE_BYTES)):
                    left -= len(data)
            await self.stream.aclose()
