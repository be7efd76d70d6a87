# SPDX-License-Identifier: Apache-2.0
"""The few connections that lead to one place, kept open between requests.

A general pool of connections sorts all it has at the beginning and at the end of each request, which costs as
much as the exchange itself. Here a request that finds a free connection just takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpcore2
import trio

from minihs.federation.dial import DialError, Dialler, Target
from minihs.federation.http11 import HttpConnection, Response
from minihs.federation.http_stream import HttpStream

MAX_IDLE = 2
"""Connections to one place that stay open while nobody needs them."""


class Connections:
    """Mutable state: `_open`, all connections; `_free`, those that wait for a request, last used at the end.
    A connection is in `_free` or with one request, never both."""

    def __init__(self, dialler: Dialler, targets: Callable[[], Sequence[Target]], *, most: int) -> None:
        self._dialler = dialler
        self._targets = targets
        self._most = most
        self._turns = trio.Semaphore(most)
        self._free: list[HttpConnection] = []
        self._open: list[HttpConnection] = []

    @property
    def is_open(self) -> bool:
        """Whether there is a connection at the moment."""
        return bool(self._open)

    async def send(
        self, method: str, url: httpcore2.URL, headers: list[tuple[bytes, bytes]], content: bytes | None
    ) -> tuple[HttpConnection, Response]:
        """The response as soon as it has begun; `finish` must be called after it. Raises the libraries'
        errors.

        A request for which there is no connection waits its turn. Cancelled, it closes the one it has.
        """
        try:
            self._turns.acquire_nowait()
        except trio.WouldBlock:
            await self._turns.acquire()
        connection = None
        try:
            connection = await self._take(url.origin)
            return connection, await connection.ask(method, url.target, headers, content)
        except BaseException:
            try:
                if connection is not None:
                    await self._close(connection)
            finally:
                self._turns.release()
            raise

    async def finish(self, connection: HttpConnection) -> None:
        """The response is read, or nobody wants to: then the connection is closed. Sends nothing and waits
        for nobody."""
        try:
            if not connection.start_over():
                await self._close(connection)
                return
            self._free.append(connection)
            if len(self._free) > MAX_IDLE and not self._turns.statistics().tasks_waiting:
                await self._close(self._free[0])
        finally:
            self._turns.release()

    async def _take(self, origin: httpcore2.Origin) -> HttpConnection:
        for connection in [each for each in self._free if each.is_stale()]:  # closed by the other side
            await self._close(connection)
        for connection in reversed(self._free):
            # A connection never serves another name than the one that its certificate was checked for.
            if connection.origin == origin:
                self._free.remove(connection)
                return connection
        if self._free and len(self._open) >= self._most:
            await self._close(self._free[0])
        connection = await self._connect(origin)
        self._open.append(connection)
        return connection

    async def _connect(self, origin: httpcore2.Origin) -> HttpConnection:
        """The origin's host is the name that is verified; where that connects to is decided here."""
        try:
            stream = HttpStream(await self._dialler.connect_any(self._targets()))
        except DialError as error:
            raise httpcore2.ConnectError(str(error)) from error
        if origin.scheme == b"https":
            stream = await stream.start_tls(self._dialler.tls, origin.host.decode("ascii"))
        return HttpConnection(origin, stream)

    async def _close(self, connection: HttpConnection) -> None:
        for known in (self._free, self._open):
            if connection in known:
                known.remove(connection)
        with trio.CancelScope(shield=True):
            await connection.aclose()

    async def aclose(self) -> None:
        for connection in list(self._open):
            await self._close(connection)

    def __repr__(self) -> str:
        return f"<Connections: {len(self._open)} open, {len(self._free)} free>"
