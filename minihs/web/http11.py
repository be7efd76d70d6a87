# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 on one connection: requests are read by `request_reader.py`, answers are written here.

It stands in the place of Hypercorn's `H11Protocol` and `HTTPStream`, which hand each part of a request and of
its answer through two more layers and queues, at a fifth of a small request's cost, and speak protocols that
can't be switched off. The application sees the same: ASGI.

- HTTP/1.1 only: `Upgrade` is ignored, HTTP/2 is answered as the bad HTTP/1.1 that it is.
- Each request has a reader of its own, which sees to it that it is well-formed and knows where it ends and
  whether another may follow. The next is not looked at before it is answered.
- What we say ourselves need not be checked as if a stranger had: h11 sees what headers of ours are new.
- Each handler runs in one task, which ends with the connection when the client hangs up.
- A short answer leaves in one send, head and body together.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import unquote

import h11
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.logging import Logger
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.task_group import _handle as run_app
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGISendEvent, HTTPScope

from minihs.web.body import Inbox
from minihs.web.request_reader import BadRequest, Headers, Request, RequestReader

log = structlog.get_logger(__name__)

type Address = tuple[str, int] | None

CORK_BYTES = 16 * 1024
"""Up to this size, what there is of an answer leaves in one packet."""

MAX_LINES = 100
"""Sets of headers of answers that are remembered in their form on the wire."""

NO_BODY = frozenset([204, 304])
GO_ON = b"HTTP/1.1 100 \r\n\r\n"
ORIGIN = re.compile(rb"https?://[^/?#]+(?=[/?]|$)", re.IGNORECASE)
"""Before the path of an absolute target, which may be empty: a slash in the query does not begin one."""


class EdgeLog(Logger):
    """Hypercorn's log, in ours: what escapes the application. The application itself logs the requests."""

    def __init__(self, _: HypercornConfig) -> None: ...

    async def access(self, *_: Any) -> None: ...

    async def exception(self, message: str, *_: Any, **__: Any) -> None:
        log.exception(message)


class EdgeConfig(HypercornConfig):
    """What Hypercorn's parts are to know; they never open sockets or log files here."""

    include_server_header = False
    logger_class: type[Logger] = EdgeLog

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}
        self._lines_until = 0.0

    def lines(self, headers: Headers) -> bytes:
        """These headers of an answer and Hypercorn's own, as they are sent. Raises LocalProtocolError if one
        can't be a header. Most answers have the same, which are checked once a second, for one is the date.
        """
        now = time.time()
        if not self._lines_until - 1 <= now < self._lines_until:
            self._lines.clear()
            self._lines_until = now // 1 + 1
        key = tuple(headers)
        found = self._lines.get(key)
        if found is None:
            checked = h11.Response(status_code=200, headers=[*headers, *self.response_headers("h11")])
            found = b"".join(b"%s: %s\r\n" % header for header in checked.headers.raw_items())
            if len(self._lines) >= MAX_LINES:
                self._lines.clear()
            self._lines[key] = found
        return found


class Line(Protocol):
    """What is asked of the connection."""

    peer: Address
    local: Address

    async def send(self, data: bytes) -> None: ...

    def set_busy(self) -> None:
        """A request has begun."""
        ...

    def set_idle(self) -> None:
        """It is answered, and another may come."""
        ...

    def end(self) -> None:
        """Nothing comes after what was sent."""
        ...


class Handlers(TaskGroup):
    """The tasks of one connection's handlers: one for each request, cancelled when the client hangs up."""

    async def __aenter__(self) -> Handlers:
        await super().__aenter__()
        return self

    def cancel(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()


class Http11:
    """Takes the requests of one connection out of its bytes and puts the answers into bytes."""

    def __init__(
        self,
        line: Line,
        handlers: Handlers,
        app: AppWrapper,
        config: EdgeConfig,
        context: WorkerContext,
        state: dict[str, Any],
        *,
        scheme: str,
    ) -> None:
        self._line = line
        self._handlers = handlers
        self._app = app
        self._config = config
        self._context = context
        self._state = state
        self._scheme = scheme
        self._reader = RequestReader()
        self._failed = False
        """What came was no request; nothing more is read."""
        self._said_all = False
        """The last answer is out. What comes now is neither read nor answered: it would have two."""
        self._exchange: Exchange | None = None
        self._answered: trio.Event | None = None
        """Set when the request is answered; somebody waits for that."""

    @property
    def has_begun(self) -> bool:
        """Whether of the request that is read now something has come."""
        return self._reader.has_begun

    @property
    def input_left(self) -> bool:
        """Whether the peer may be in the middle of sending something that we won't read."""
        return self._failed or (self._reader.request is not None and not self._reader.ended)

    async def receive(self, data: bytes) -> None:
        """Pass on what came; b"" is the end of it. Waits while the handler has not taken what came before."""
        if not data and self._reader.has_begun and not self._reader.ended and not self._said_all:
            await self._refuse_input(400)
        while data and not self._failed and not self._said_all:
            try:
                data = await self._read(data)
            except BadRequest as error:
                await self._refuse_input(error.status)

    async def _read(self, data: bytes) -> bytes:
        """Take some of it, and return what is left to be read. Raises BadRequest."""
        reader = self._reader
        if reader.ended:
            if reader.request is not None and reader.request.is_last:
                raise BadRequest(400)
            self._answered = trio.Event()
            await self._answered.wait()
        elif reader.request is None:
            data = reader.read_head(data)
            if reader.request is not None:
                await self._begin(reader.request)
                if reader.ended:
                    await self._pass_on(b"", more=False)
        else:
            body, data = reader.read_body(data)
            if body:
                await self._pass_on(body, more=True)
            if reader.ended:
                await self._pass_on(b"", more=False)
        return data

    async def _pass_on(self, body: bytes, *, more: bool) -> None:
        if self._exchange is not None:
            await self._exchange.inbox.put({"type": "http.request", "body": body, "more_body": more})

    def close(self) -> None:
        """The connection is over, and with it what is not answered."""
        if self._exchange is not None:
            self._exchange.over = True
            self._handlers.cancel()

    async def _begin(self, request: Request) -> None:
        target = origin_form(request.target)
        if target is None:
            raise BadRequest(400)
        self._line.set_busy()
        path, _, query = target.partition(b"?")
        scope: HTTPScope = {
            "type": "http",
            "http_version": request.version,
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": request.method,
            "scheme": self._scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": self._config.root_path,
            "headers": request.headers,
            "client": self._line.peer,
            "server": self._line.local,
            "state": {**self._state, "target": target},  # type: ignore[typeddict-item]  # a plain dict will do
            "extensions": {},
        }
        if request.expects_100:
            await self._line.send(GO_ON)
        exchange = self._exchange = Exchange(
            self, self._line, is_head=request.method == "HEAD", is_old=request.version == "1.0"
        )
        self._handlers.spawn(
            run_app,
            self._app,
            self._config,
            scope,
            exchange.inbox.take,
            exchange.send,
            refuse_threads,
            refuse_threads,
        )

    # -- for the answer ----------------------------------------------------------------------------

    def head(self, status: int, headers: Headers, framing: bytes, *, last: bool) -> bytes:
        """`framing`: the lines that say where the answer ends."""
        if last:
            framing += b"connection: close\r\n"
        return b"HTTP/1.1 %d \r\n%s%s\r\n" % (status, framing, self._config.lines(headers))

    @property
    def may_go_on(self) -> bool:
        """Whether the request is whole, and the client may send another.

        What is left of a request won't be read. A client that doesn't know would send its next request
        behind it, and lose that.
        """
        request = self._reader.request
        return self._reader.ended and request is not None and not request.is_last

    async def _refuse_input(self, status: int) -> None:
        self._failed = True
        await self.refuse(status)

    async def refuse(self, status: int) -> None:
        """The last answer on this connection, unless one is on its way already."""
        exchange = self._exchange
        if exchange is not None:
            exchange.last = exchange.over = True
        if exchange is None or not exchange.begun:
            await self._line.send(self.head(status, [], b"content-length: 0\r\n", last=True))
        self._line.end()

    def finish(self, *, last: bool) -> None:
        """The handler has answered, or never will."""
        self._exchange = None
        if last or not self.may_go_on or self._context.terminated.is_set():
            self._said_all = True
            self._line.end()
        else:
            self._reader = RequestReader()
            self._line.set_idle()
        if self._answered is not None:
            self._answered.set()
            self._answered = None


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_chunked", "_http", "_is_old", "_left", "_line", "_no_body", "_parts", "begun", "inbox", "last",
        "over",
    )  # fmt: skip

    def __init__(self, http: Http11, line: Line, *, is_head: bool, is_old: bool) -> None:
        self._http = http
        self._line = line
        self._is_old = is_old
        """The client speaks HTTP/1.0."""
        self._no_body = is_head
        self._chunked = False
        self._left: int | None = None
        """Bytes still to come, where the answer says how long it is."""
        self._parts: list[bytes] = []
        """Of the answer, not sent yet."""
        self.inbox = Inbox()
        self.begun = False
        """Some of the answer was sent."""
        self.last = False
        """The answer ends with the connection."""
        self.over = False
        """It is answered, or nobody is there to read the answer."""

    async def send(self, message: ASGISendEvent | None) -> None:
        """For the application. None: it has returned."""
        self.inbox.close()  # our handlers answer when they have read what they want
        if self.over:
            return
        if message is None:
            await self._http.refuse(500)
            self._http.finish(last=True)
        elif message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
        elif message["type"] == "http.response.body":
            self._add(message["body"])
            if message["more_body"]:
                await self._flush()
                return
            self._end()
            await self._flush()
            # No await from here on: what follows the answer in this task may be cancelled, and the connection
            # would never learn that it is idle.
            self.over = True
            self._http.finish(last=self.last)

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        others: Headers = []
        for name, value in headers:
            if name == b"content-length":
                self._left = int(value)
            else:
                others.append((name, value))
        self.last = not self._http.may_go_on
        self._no_body = self._no_body or status in NO_BODY
        framing = b""
        if self._left is not None:
            framing = b"content-length: %d\r\n" % self._left
        elif self._is_old:
            self.last = True  # the end of the connection is the end of the answer
        elif status not in NO_BODY:
            framing = b"transfer-encoding: chunked\r\n"
            self._chunked = True
        self._parts.append(self._http.head(status, others, framing, last=self.last))

    def _add(self, body: bytes) -> None:
        if not body or self._no_body:
            return
        if self._chunked:
            self._parts.append(b"%x\r\n%s\r\n" % (len(body), body))
            return
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("an answer is longer than its Content-Length")
        self._parts.append(body)

    def _end(self) -> None:
        if self._no_body:
            return
        if self._left:
            raise RuntimeError("an answer is shorter than its Content-Length")
        if self._chunked:
            self._parts.append(b"0\r\n\r\n")

    async def _flush(self) -> None:
        parts, self._parts, self.begun = self._parts, [], True
        if sum(map(len, parts)) <= CORK_BYTES:
            parts = [b"".join(parts)]
        for part in parts:
            await self._line.send(part)


def refuse_threads(*_: Any) -> Any:
    """Hypercorn offers threads to WSGI applications; ours is none."""
    raise NotImplementedError


def origin_form(target: bytes) -> bytes | None:
    """Path and query of a request target; None for what we don't serve (CONNECT, other schemes)."""
    if target.startswith(b"/") or target == b"*":
        return target
    found = ORIGIN.match(target)
    if found is None:
        return None
    rest = target[found.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest
