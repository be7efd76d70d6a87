# SPDX-License-Identifier: Apache-2.0
"""HTTP over kept connections, with what we always want: a deadline, a cap on the body, and one kind of
error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import h11
import httpcore2
import trio

from minihs.federation.connections import Connections
from minihs.federation.dial import Dialler, Target
from minihs.federation.http11 import Response
from minihs.federation.network_errors import text_of

type Headers = Iterable[tuple[str, str]]

MAX_HEADER_VALUE = 8 * 1024


class HttpFailure(Exception):
    """There was no (whole) response. The text says why."""


class Disconnected(HttpFailure):
    """The connection ended before a response began: a kept-alive connection may just have been closed by the
    peer."""


class BadResponse(HttpFailure):
    """What came is not HTTP, or more than we take."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: dict[str, str]
    """Names in lower case; of repeated ones the last, but Cache-Control joined."""
    body: bytes


@asynccontextmanager
async def exchange(
    pool: Connections,
    method: str,
    url: httpcore2.URL,
    headers: Headers,
    content: bytes | None,
) -> AsyncIterator[Response]:
    """Send a request; the response's head is there, its body is still to be read. Raises HttpFailure.

    Cancelling it, or leaving it with the body half read, closes the connection.
    """
    encoded = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    with mapped_errors():
        connection, response = await pool.send(method, url, encoded, content)
    try:
        yield response
    finally:
        await pool.finish(connection)


async def chunks(response: Response, max_bytes: int) -> AsyncGenerator[bytes]:
    """The body piece by piece. Raises BadResponse as soon as it is longer than `max_bytes`."""
    total = 0
    with mapped_errors(started=True):
        async with aclosing(response.body()) as stream:
            async for chunk in stream:
                total += len(chunk)
                if total > max_bytes:
                    raise BadResponse(f"the response is larger than {max_bytes} bytes")
                yield chunk


async def read_body(response: Response, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    async with aclosing(chunks(response, max_bytes)) as pieces:
        async for chunk in pieces:
            parts.append(chunk)
    return b"".join(parts)


def headers_of(response: Response) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value[:MAX_HEADER_VALUE].decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name == "cache-control" and name in found else value
    return found


class mapped_errors:
    """Turns the libraries' exceptions into ours. `started`: the response has begun."""

    def __init__(self, *, started: bool = False) -> None:
        self._started = started

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        text = text_of(error)
        if isinstance(error, httpcore2.RemoteProtocolError):
            raise Disconnected("the connection was closed without an answer") from error
        if isinstance(error, h11.RemoteProtocolError):
            raise BadResponse(f"not HTTP as it should be: {text}") from error
        if isinstance(error, (httpcore2.ReadError, httpcore2.WriteError)):
            if self._started:
                raise HttpFailure(f"the connection broke: {text}") from error
            raise Disconnected(f"the connection broke: {text}") from error
        if isinstance(error, (httpcore2.NetworkError, h11.LocalProtocolError)):
            raise HttpFailure(text) from error
        if isinstance(error, UnicodeError):  # a host name that can't be one, found out by the TLS library
            raise HttpFailure("the host name is not valid") from error


async def fetch(
    dialler: Dialler,
    target: Target,
    path: str,
    headers: Headers,
    *,
    max_bytes: int,
) -> HttpResponse:
    """One GET on a connection of its own, for a body that fits into memory. Raises HttpFailure."""
    pool = Connections(dialler, lambda: [target], most=1)
    try:
        url = httpcore2.URL(scheme="https", host=target.host, port=target.port, target=path)
        async with exchange(pool, "GET", url, headers, None) as response:
            body = await read_body(response, max_bytes)
            return HttpResponse(response.status, headers_of(response), body)
    finally:
        with trio.CancelScope(shield=True):
            await pool.aclose()
