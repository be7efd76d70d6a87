# SPDX-License-Identifier: Apache-2.0
"""Request bodies with back-pressure, a cap and a deadline.

Quart's own body queues without bound and looks at its cap only after the last byte. This one holds at most a
few chunks: when the handler does not read, the connection is not read either, and TCP slows the sender down.
The cap is the route's, and it is counted while reading, so a body that lies about its length is noticed as
well.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, HTTPScope
from quart.wrappers.base import ClientDisconnectedError
from quart_trio.wrappers.request import TrioBody, TrioRequest
from werkzeug.datastructures import Headers
from werkzeug.sansio.request import Request as SansIORequest

from minihs.matrix.errors import MatrixError, too_large

CHUNKS_IN_FLIGHT = 4
"""Chunks (≤ 64 KiB each) taken from the connection and not yet read by the handler."""

WHOLE_BODY_SECONDS = 60.0
"""A body that is read whole must have arrived by then: no chunk that comes later is taken."""

NEXT_CHUNK_SECONDS = 30.0
"""A body must make some progress within this time."""


class Inbox:
    """What came of one request and was not taken by its handler yet, as ASGI messages.

    Whoever finds something there goes on at once: a request that came whole in one packet never waits.
    """

    __slots__ = ("_changed", "_closed", "_messages")

    def __init__(self) -> None:
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._changed: trio.Event | None = None
        self._closed = False

    async def put(self, message: ASGIReceiveEvent) -> None:
        """For the connection; waits while the inbox is full."""
        while len(self._messages) >= CHUNKS_IN_FLIGHT and not self._closed:
            await self._change()
        if not self._closed:
            self._messages.append(message)
            self._notify()

    async def take(self) -> ASGIReceiveEvent:
        """For the handler; waits while there is nothing. 408 if nothing comes within NEXT_CHUNK_SECONDS."""
        while not self._messages:
            with trio.move_on_after(NEXT_CHUNK_SECONDS) as scope:
                await self._change()
            if scope.cancelled_caught:
                raise too_slow()
        message = self._messages.popleft()
        self._notify()
        return message

    def close(self) -> None:
        """Nothing is taken any more: the answer is out. What is still to come is thrown away."""
        self._closed = True
        self._messages.clear()
        self._notify()

    async def _change(self) -> None:
        # Never both wait: one needs it full, the other empty.
        self._changed = trio.Event()
        await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class BoundedBody(TrioBody):
    """The body of one request: `read` it whole or `stream` it, once."""

    def __init__(self, request: BoundedRequest, receive: ASGIReceiveCallable) -> None:
        self._request = request
        self._receive = receive
        self._ended = False

    def stream(self, cap: int) -> Chunks:
        """The chunks as they arrive; 413 as soon as the cap is (or is announced to be) passed."""
        announced = self._request.headers.get("Content-Length")  # a number: the reader has seen to that
        if announced is not None and int(announced) > cap:
            raise too_large()
        return Chunks(self, cap)

    async def read(self, cap: int) -> bytes:
        """The whole body, at most `cap` bytes."""
        end = trio.current_time() + WHOLE_BODY_SECONDS
        data = bytearray()
        async for chunk in self.stream(cap):
            data += chunk
            if trio.current_time() > end:
                raise too_slow()
        return bytes(data)

    async def next_chunk(self) -> bytes:
        """b"": the body has ended."""
        while not self._ended:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientDisconnectedError
            self._ended = not message["more_body"]
            if message["body"]:
                return message["body"]
        return b""

    def __await__(self) -> Any:
        """Quart's own accessors (forms and such) are not used here; they would know no cap."""
        raise NotImplementedError("use Call.body(), Call.json() or Call.stream()")


class Chunks:
    """The rest of a body. (No async generator: one that is left half-read has to be closed by hand.)"""

    def __init__(self, body: BoundedBody, cap: int) -> None:
        self._body = body
        self._left = cap

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._body.next_chunk()
        if not chunk:
            raise StopAsyncIteration
        self._left -= len(chunk)
        if self._left < 0:
            raise too_large()
        return chunk


def too_slow() -> MatrixError:
    return MatrixError(408, "M_UNKNOWN", "The request's body did not arrive in time.")


class BoundedRequest(TrioRequest):
    """Quart's request with our body, made straight from the ASGI scope: Quart itself would make ready what
    handlers here never ask for, at the cost of a fifth of a small request."""

    body: BoundedBody

    def __init__(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> None:
        headers = Headers()
        # Werkzeug would look for line breaks in each, of which the reader has let none pass.
        headers._list = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        client = scope["client"]
        SansIORequest.__init__(
            self,
            scope["method"],
            scope["scheme"],
            scope["server"],
            scope["root_path"],
            scope["path"],
            scope["query_string"],
            headers,
            None if client is None else client[0],
        )
        self.http_version, self.scope = scope["http_version"], scope
        self.body = BoundedBody(self, receive)
