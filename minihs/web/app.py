# SPDX-License-Identifier: Apache-2.0
"""The application: from an HTTP request to its handler and back.

Quart-Trio brings the application and the request; what happens to a request here is one straight line:
route → authenticate → rate limit → handler → answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable
from types import ModuleType

import structlog
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart.wrappers.base import ClientDisconnectedError
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError, unauthorized
from minihs.runtime import is_plausible
from minihs.web.body import BoundedRequest
from minihs.web.client_address import client_address
from minihs.web.errors import error_answer
from minihs.web.rate_limits import RateLimiter, network_of
from minihs.web.requester import access_token, authenticate
from minihs.web.route_modules import ROUTE_MODULES
from minihs.web.routing import Answer, Auth, Call
from minihs.web.services import Services
from minihs.web.url_map import UrlMap

CORS_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, DELETE, OPTIONS, HEAD"),
    (b"access-control-allow-headers", b"X-Requested-With, Content-Type, Authorization, Range"),
    (b"access-control-expose-headers", b"Content-Disposition, Content-Range, Retry-After"),
)

SERVER_TO_SERVER = (b"/_matrix/federation/", b"/_matrix/key/")
"""Paths that no browser has a use for; all others, unknown ones included, carry the CORS headers."""

log = structlog.get_logger(__name__)


class App(QuartTrio):
    """The ASGI application of one server."""

    def __init__(self, services: Services, modules: list[ModuleType] | None = None) -> None:
        super().__init__(__name__, static_folder=None)
        self.services = services
        self.limiter = RateLimiter(services.runtime.clock, enabled=services.config.rate_limits.enabled)
        self.asgi_http_class = Exchange
        self.routes = UrlMap()
        for module in ROUTE_MODULES if modules is None else modules:
            for route in module.routes.all:
                self.routes.add(route)

    async def answer(self, request: BoundedRequest) -> Answer:
        if request.method == "OPTIONS":
            return Answer(200, json={})
        scope = request.scope
        route, arguments = self.routes.find(request.method, scope["raw_path"], scope["state"]["apis"])
        if route.api == "federation" and not is_plausible(self.services.runtime.clock.now_ms()):
            raise MatrixError(503, "M_UNKNOWN", "This server's clock is wrong; it can't check signatures.")
        call = Call(self.services, request, route, client_address(request))
        await self.authenticate(call)
        if route.limit is not None:
            requester = call.maybe_requester
            self.limiter.check(
                route.limit, requester.user_id if requester else network_of(call.remote_address)
            )
        result = await route.handler(call, **arguments)
        return result if isinstance(result, Answer) else Answer(200, json=result)

    async def authenticate(self, call: Call) -> None:
        match call.route.auth:
            case Auth.NONE:
                return
            case Auth.FEDERATION:
                await self.authenticate_server(call)
            case Auth.CLIENT | Auth.OPTIONAL_CLIENT as auth:
                token = access_token(call.headers.get("Authorization"), call.query.get("access_token"))
                if token or auth is Auth.CLIENT:
                    call.set_requester(authenticate(self.services.users, token, call.remote_address))
                    structlog.contextvars.bind_contextvars(user=call.requester.user_id)

    async def authenticate_server(self, call: Call) -> None:
        # Looked at before the body is read, so that strangers can't make us parse megabytes for nothing.
        if not call.headers.get("Authorization", "").lower().startswith("x-matrix"):
            raise unauthorized("The request is not signed: it has no X-Matrix Authorization header.")
        content = None
        if call.method in {"PUT", "POST"} and await call.body():
            content = await call.json_value()
        call.origin = await self.services.request_auth.authenticate(
            call.method, call.raw_uri, call.headers, content, floats=call.has_floats
        )
        structlog.contextvars.bind_contextvars(origin=call.origin)


class Exchange(TrioASGIHTTPConnection):
    """One request and its response. Quart's own request context is left out: handlers get a `Call`. So is its
    second task, which would wait for the client to hang up: the connection cancels us when it does."""

    app: App

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        started = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        request = BoundedRequest(self.scope, receive)
        path = self.scope["raw_path"]
        structlog.contextvars.bind_contextvars(method=request.method, path=path.decode("ascii")[:200])
        try:
            answer = as_bytes(await self.app.answer(request))
        except ClientDisconnectedError:
            return
        except Exception as error:  # noqa: BLE001 - the edge: bugs are logged and answered
            answer = as_bytes(error_answer(error, self.app.services.runtime.random))
        await send_answer(send, answer, () if path.startswith(SERVER_TO_SERVER) else CORS_HEADERS)
        log.debug("answered", status=answer.status, ms=round((time.perf_counter() - started) * 1000, 1))


def as_bytes(answer: Answer) -> Answer:
    """JSON becomes a body."""
    if answer.body is not None:
        return answer
    headers = {"Content-Type": "application/json", **answer.headers}
    return Answer(answer.status, body=canonical.dumps(answer.json), headers=headers)


async def send_answer(
    send: ASGISendCallable, answer: Answer, more_headers: Iterable[tuple[bytes, bytes]]
) -> None:
    headers = [*more_headers]
    for name, value in answer.headers.items():
        headers.append((name.lower().encode("ascii"), value.encode("latin-1")))
    body = answer.body
    if isinstance(body, bytes):
        headers.append((b"content-length", str(len(body)).encode()))
    await send(
        {"type": "http.response.start", "status": answer.status, "headers": headers, "trailers": False}
    )
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body, "more_body": False})
    elif body is not None:
        try:
            async for chunk in body:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
