# SPDX-License-Identifier: Apache-2.0
"""Request bodies with back-pressure, a cap and a deadline.

Quart's own body queues without bound and looks at its cap only after the last byte. This one holds at most a
few chunks: when the handler does not read, the connection is not read either, and TCP slows the sender down.
The cap is the route's, and it is counted while reading, so a body that lies about its length is noticed as
well.
"""

from __future__ import annotations

from typing import Any

import trio
from quart.wrappers.base import ClientDisconnectedError
from quart_trio.wrappers.request import TrioBody, TrioRequest

from minihs.matrix.errors import MatrixError, too_large

CHUNKS_IN_FLIGHT = 4
"""Chunks (≤ 64 KiB each) taken from the connection and not yet read by the handler."""

WHOLE_BODY_SECONDS = 60.0
"""A body that is read whole must have arrived by then."""

NEXT_CHUNK_SECONDS = 30.0
"""A streamed body must make some progress within this time."""


class BoundedBody(TrioBody):
    """The body of one request: `read` it whole or `stream` it, once."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self.expected = expected_content_length
        self._sender, self._receiver = trio.open_memory_channel[bytes](CHUNKS_IN_FLIGHT)
        self._complete_seen = False

    # Called by the ASGI side.

    async def put(self, data: bytes) -> None:
        if not data:
            return
        try:
            await self._sender.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Nobody will read it any more: the answer is on its way. The rest is thrown away.
            await trio.lowlevel.checkpoint()

    def set_complete(self) -> None:
        self._complete_seen = True
        self._sender.close()

    def disconnect(self) -> None:
        self._sender.close()

    # Called by the handler's side.

    def discard(self) -> None:
        """Throw away what is still to come, without holding up the connection."""
        self._receiver.close()

    def stream(self, cap: int) -> Chunks:
        """The chunks as they arrive; 413 as soon as the cap is (or is announced to be) passed."""
        if self.expected is not None and self.expected > cap:
            raise too_large()
        return Chunks(self, cap)

    async def next_chunk(self) -> bytes:
        try:
            with trio.fail_after(NEXT_CHUNK_SECONDS):
                return await self._receiver.receive()
        except trio.EndOfChannel:
            if not self._complete_seen:
                raise ClientDisconnectedError from None
            raise StopAsyncIteration from None
        except trio.TooSlowError:
            raise too_slow() from None

    async def read(self, cap: int) -> bytes:
        """The whole body, at most `cap` bytes."""
        data = bytearray()
        try:
            with trio.fail_after(WHOLE_BODY_SECONDS):
                async for chunk in self.stream(cap):
                    data += chunk
        except trio.TooSlowError:
            raise too_slow() from None
        return bytes(data)

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
        self._left -= len(chunk)
        if self._left < 0:
            raise too_large()
        return chunk


def too_slow() -> MatrixError:
    return MatrixError(408, "M_UNKNOWN", "The request's body did not arrive in time.")


class BoundedRequest(TrioRequest):
    """Quart's request, with our body."""

    body_class = BoundedBody
    body: BoundedBody
