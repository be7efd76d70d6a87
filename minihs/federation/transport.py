# SPDX-License-Identifier: Apache-2.0
"""Signed requests to other servers (spec: server-server-api, "API standards", "Request Authentication").

Finds the server, keeps a few connections to it, signs, reads the answer within a size and a time, and says in
the type of the error whose fault it was (`matrix.federation_errors`). What is asked, and what the answers
mean, is in `client.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import httpcore2
import trio

from minihs.federation import http, x_matrix
from minihs.federation.discovery import Discovery, Route
from minihs.federation.http11 import Response
from minihs.federation.pools import Pools
from minihs.matrix import canonical, unpadded
from minihs.matrix.canonical import MAX_WIRE_DEPTH, JsonObject
from minihs.matrix.federation_errors import RemoteProtocolError, RemoteRefused, Unreachable
from minihs.matrix.ids import is_server_name
from minihs.matrix.signatures import SigningKey
from minihs.runtime import Runtime

type Query = Iterable[tuple[str, str]]

DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_BYTES = 4 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024

FAILURE_MEMORY = 10.0
"""Seconds that a server which could not be reached is not tried again: fifty requests cost one time-out, not
fifty."""

MAX_REMEMBERED_FAILURES = 5_000

REDISCOVER_AFTER = 300.0
"""Seconds after which a way that stopped working is looked up again, though it was meant to hold longer."""

THREAD_BYTES = 1024 * 1024
"""Answers larger than this are parsed off the loop."""


def path(prefix: str, *segments: str) -> str:
    """`prefix` and the segments, each percent-encoded as a whole."""
    return "/".join((prefix, *(quote(segment, safe="") for segment in segments)))


@dataclass(frozen=True, slots=True)
class Request:
    """One request to one server, apart from how it gets there."""

    method: str
    destination: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    content: bytes | None = None
    """Canonical JSON."""
    signed: bool = True
    max_depth: int = MAX_WIRE_DEPTH
    """How deep the JSON of the answer may be nested."""

    @property
    def uri(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


class Transport:
    def __init__(
        self,
        server_name: str,
        signing_key: SigningKey,
        runtime: Runtime,
        discovery: Discovery,
        pools: Pools,
    ) -> None:
        self.server_name = server_name
        self._signing_key = signing_key
        self._runtime = runtime
        self._discovery = discovery
        self._pools = pools
        self._failed: dict[str, tuple[float, str]] = {}

    # -- JSON in, JSON out --

    async def get_json(
        self,
        destination: str,
        path: str,
        query: Query = (),
        *,
        within: float = DEFAULT_TIMEOUT,
        max_bytes: int = DEFAULT_MAX_BYTES,
        signed: bool = True,
        max_depth: int = MAX_WIRE_DEPTH,
    ) -> JsonObject:
        request = Request("GET", destination, path, tuple(query), signed=signed, max_depth=max_depth)
        return await self._object(request, within, max_bytes)

    async def put_json(
        self,
        destination: str,
        path: str,
        content: JsonObject,
        query: Query = (),
        *,
        within: float = DEFAULT_TIMEOUT,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_depth: int = MAX_WIRE_DEPTH,
    ) -> JsonObject:
        request = Request(
            "PUT", destination, path, tuple(query), canonical.encode(content), max_depth=max_depth
        )
        return await self._object(request, within, max_bytes)

    async def post_json(
        self,
        destination: str,
        path: str,
        content: JsonObject,
        query: Query = (),
        *,
        within: float = DEFAULT_TIMEOUT,
        max_bytes: int = DEFAULT_MAX_BYTES,
        signed: bool = True,
        max_depth: int = MAX_WIRE_DEPTH,
    ) -> JsonObject:
        data = canonical.encode(content)
        request = Request("POST", destination, path, tuple(query), data, signed, max_depth)
        return await self._object(request, within, max_bytes)

    async def put_bytes(
        self,
        destination: str,
        path: str,
        content: bytes,
        *,
        within: float,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> JsonObject:
        """A PUT of canonical JSON that is ready. Tries though the server could not be reached a moment
        ago."""
        self._failed.pop(destination, None)
        return await self._object(Request("PUT", destination, path, content=content), within, max_bytes)

    async def _object(self, request: Request, within: float, max_bytes: int) -> JsonObject:
        answer = await self.any_json(request, within=within, max_bytes=max_bytes)
        if not isinstance(answer, dict):
            raise RemoteProtocolError(request.destination, "answered with something else than a JSON object")
        return answer

    async def any_json(
        self,
        request: Request,
        *,
        within: float = DEFAULT_TIMEOUT,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Any:
        """The answer, whatever JSON it is (one old endpoint answers with a list)."""
        async with self.stream(request, within=within) as response:
            body = await http.read_body(response, max_bytes)
        read = partial(canonical.loads, body, max_depth=request.max_depth)
        try:
            return await self._runtime.threads.run(read) if len(body) > THREAD_BYTES else read()
        except ValueError as error:
            raise RemoteProtocolError(request.destination, f"answered with bad JSON: {error}") from error

    # -- the request itself --

    @asynccontextmanager
    async def stream(self, request: Request, *, within: float) -> AsyncIterator[Response]:
        """Send a request and hand out the response as soon as it has begun, if it is a success (2xx).

        The time-out covers the body of the `async with` as well, and so does the translation of errors:
        reading the response there raises FederationError too.
        """
        destination = request.destination
        if not is_server_name(destination):
            raise Unreachable(destination[:255], "is not a valid server name")
        if destination == self.server_name:
            raise Unreachable(destination, "is this server itself")
        self._check_failures(destination)
        timed_out = Unreachable(destination, "did not answer in time")
        with trio.move_on_after(within) as scope:
            async with self._attempt(request) as response:
                if not 200 <= response.status < 300:
                    raise RemoteRefused(destination, response.status, await self._error_body(response))
                self._failed.pop(destination, None)
                yield response
        if scope.cancelled_caught:
            raise timed_out

    @asynccontextmanager
    async def _attempt(self, request: Request) -> AsyncIterator[Response]:
        """The request on the way that we know, if need be a second time: on a fresh connection if the kept
        one turned out to be closed, or on a new way if the old one has stopped working."""
        repeatable = request.method in ("GET", "PUT")
        for last in (False, True):
            await self._ensure_route(request.destination)
            entered = False
            try:
                async with (
                    self._pools.use(request.destination) as (route, pool),
                    http.exchange(
                        pool,
                        request.method,
                        _url(route, request.uri),
                        self._headers(route, request),
                        request.content,
                    ) as response,
                ):
                    entered = True
                    yield response
                    return
            except http.BadResponse as error:
                raise RemoteProtocolError(request.destination, str(error)) from error
            except http.Disconnected as error:
                if entered or last or not repeatable:
                    raise self._unreachable(request.destination, error) from error
            except http.HttpFailure as error:
                stale = self._pools.route_age(request.destination) > REDISCOVER_AFTER
                if not entered and stale:
                    await self._discovery.expire(request.destination)
                    await self._pools.forget(request.destination)
                if entered or last or not stale:
                    raise self._unreachable(request.destination, error) from error

    async def _ensure_route(self, destination: str) -> None:
        if self._pools.route(destination) is not None:
            return
        try:
            route = await self._discovery.find(destination)
        except Unreachable as error:
            raise self._unreachable(destination, error) from error
        await self._pools.set_route(destination, route)

    def _headers(self, route: Route, request: Request) -> list[tuple[str, str]]:
        headers = [("Host", route.host_header), ("User-Agent", "minihs"), ("Accept", "application/json")]
        if request.content is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(request.content)))]
        if request.signed:
            headers.append(("Authorization", self.authorization(request)))
        return headers

    def authorization(self, request: Request) -> str:
        message = x_matrix.signed_bytes(
            method=request.method,
            uri=request.uri,
            origin=self.server_name,
            destination=request.destination,
            content=request.content,
        )
        return x_matrix.format_header(
            origin=self.server_name,
            destination=request.destination,
            key_id=self._signing_key.key_id,
            signature=unpadded.encode(self._signing_key.sign(message)),
        )

    async def _error_body(self, response: Response) -> JsonObject:
        try:
            body = canonical.loads(await http.read_body(response, MAX_ERROR_BYTES))
        except (http.HttpFailure, ValueError):
            return {}  # a proxy's page; the status says enough
        return body if isinstance(body, dict) else {}

    # -- who could not be reached a moment ago --

    def is_connected(self, server: str) -> bool:
        """Whether there is a connection to it at the moment."""
        return self._pools.is_connected(server)

    def heard_from(self, server: str) -> None:
        """The server has just called us: it is up."""
        self._failed.pop(server, None)

    def _unreachable(self, destination: str, error: Exception) -> Unreachable:
        message = error.message if isinstance(error, Unreachable) else str(error)
        self._failed.pop(destination, None)
        while len(self._failed) >= MAX_REMEMBERED_FAILURES:
            del self._failed[next(iter(self._failed))]
        self._failed[destination] = (trio.current_time() + FAILURE_MEMORY, message)
        return Unreachable(destination, message)

    def _check_failures(self, destination: str) -> None:
        until, message = self._failed.get(destination, (0.0, ""))
        if trio.current_time() < until:
            raise Unreachable(destination, message)

    async def aclose(self) -> None:
        await self._pools.aclose()


def _url(route: Route, uri: str) -> httpcore2.URL:
    port = route.places[0].port if route.places else 0
    return httpcore2.URL(scheme="https", host=route.verify_name, port=port, target=uri)
