# SPDX-License-Identifier: Apache-2.0
"""A trio stream as httpcore2 wants it: real sockets and the in-memory ones of tests alike.

httpcore2's own trio stream insists on a socket when it asks whether an idle connection was closed by the
peer.
"""

from __future__ import annotations

import ssl
from typing import Any

import httpcore2
import trio

from minihs.federation.network_errors import text_of

TLS_TIMEOUT = 10.0
"""Seconds for a TLS handshake."""


CORK = 64 * 1024
"""Bytes held back at most, so that the head of a request and its body leave in one piece."""


class HttpStream(httpcore2.AsyncNetworkStream):
    """Deadlines are the caller's, by cancel scopes; the `timeout` arguments are not used.

    What is written is held back until it is much, or until an answer is waited for: one packet and one TLS
    record for most requests instead of two.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._corked = bytearray()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 -- httpcore2's
        if self._corked:
            try:
                await self._flush()
            except httpcore2.WriteError:
                pass  # the peer may have answered before it closed: an error message, say
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore2.ReadError(text_of(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- httpcore2's
        self._corked += buffer
        if len(self._corked) >= CORK:
            await self._flush()

    async def _flush(self) -> None:
        data, self._corked = self._corked, bytearray()
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore2.WriteError(text_of(error)) from error

    async def aclose(self) -> None:
        # No TLS goodbye: with https_compatible nobody needs one, and a peer that stopped reading could hold
        # it up.
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore2's signature
    ) -> HttpStream:
        tls = trio.SSLStream(
            self._stream,
            ssl_context,
            server_hostname=server_hostname,
            https_compatible=True,
            server_side=False,
        )
        try:
            with trio.fail_after(TLS_TIMEOUT):
                await tls.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(self._stream)
            if isinstance(error, trio.TooSlowError):
                raise httpcore2.ConnectError("the TLS handshake took too long") from error
            if isinstance(error, trio.BrokenResourceError):
                raise httpcore2.ConnectError(f"TLS: {text_of(error)}") from error
            raise
        return HttpStream(tls)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return None  # only asked for to find out about HTTP/2, which we do not offer
        if info == "is_readable":
            return _is_readable(self._stream)
        return None


def _is_readable(stream: trio.abc.Stream) -> bool:
    """Whether a read would return at once: on an idle HTTP connection that means the peer has closed it."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        return bool(stream.socket.is_readable())
    return bool(getattr(stream, "is_readable", lambda: False)())
