# SPDX-License-Identifier: Apache-2.0
"""One connection that asks: HTTP/1.1 by h11, one request after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import h11
import httpcore2

from minihs.federation.http_stream import HttpStream

MAX_HEAD = 100 * 1024
"""Bytes of a response's status line and headers."""

READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """A response that has begun."""

    status: int
    headers: list[tuple[bytes, bytes]]
    _connection: HttpConnection

    async def body(self) -> AsyncGenerator[bytes]:
        """Piece by piece, once."""
        while isinstance(event := await self._connection.next_event(), h11.Data):
            yield bytes(event.data)


class HttpConnection:
    """Mutable state: what h11 knows of the exchange that is under way."""

    def __init__(self, origin: httpcore2.Origin, stream: HttpStream) -> None:
        self.origin = origin
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._broken = False

    def is_stale(self) -> bool:
        """To be asked between two exchanges: whether the other side has closed the connection. (Or it speaks
        without being asked, which is as bad.)"""
        return bool(self._stream.get_extra_info("is_readable"))

    async def ask(
        self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], content: bytes | None
    ) -> Response:
        """The response as soon as it has begun. Raises httpcore2's errors and h11's."""
        message = self._h11.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if content:
            message += self._h11.send(h11.Data(data=content)) or b""
        message += self._h11.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.write(message)
        except httpcore2.WriteError:
            self._broken = True  # but the peer may have answered before it closed: an error message, say
        while not isinstance(event := await self.next_event(), h11.Response):
            pass
        return Response(event.status_code, event.headers.raw_items(), self)

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            data = await self._stream.read(READ_BYTES)
            if not data and self._h11.their_state is h11.SEND_RESPONSE:
                raise httpcore2.RemoteProtocolError("disconnected without a response")
            self._h11.receive_data(data)
        return event  # type: ignore[return-value]  # mypy does not know of this NEED_DATA any more

    def start_over(self) -> bool:
        """The exchange is over. False: another one is not possible, since not all was read, the server
        does not want to, or it has sent more than the response."""
        state = self._h11
        whole = state.our_state is h11.DONE and state.their_state is h11.DONE
        if self._broken or not whole or state.trailing_data[0]:
            return False
        state.start_next_cycle()
        return True

    async def aclose(self) -> None:
        self._broken = True
        await self._stream.aclose()
