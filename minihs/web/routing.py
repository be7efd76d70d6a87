# SPDX-License-Identifier: Apache-2.0
"""How a route module says what it serves, and what its handlers are given.

    routes = Routes()

    @routes.get("/_matrix/client/v3/rooms/{room_id}/members", auth=CLIENT)
    async def members(call: Call, room_id: str) -> JsonObject: ...

A handler returns a JSON object (200) or an `Answer`, or raises `MatrixError`. Path segments come decoded,
each on its own, so `%2F` stays inside its segment. `/_matrix/client/v3/...` is served under `r0` too and
`/_matrix/media/v3/...` under `r0` and `v1`. Slashes at the end count: where both forms are to be served, name
the other in `also`; a path parameter that only one of them has needs a default in the handler (the empty
state key).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import parse_qsl

from minihs.matrix import canonical
from minihs.matrix.canonical import MAX_CARRIED_DEPTH, MAX_WIRE_DEPTH, JsonObject
from minihs.matrix.errors import MatrixError, bad_json, invalid_param, missing_param, not_json
from minihs.requester import Requester

if TYPE_CHECKING:
    from minihs.web.body import BoundedRequest
    from minihs.web.services import Services

KIB = 1024
MIB = 1024 * KIB

MAX_QUERY_FIELDS = 1000


class Auth(Enum):
    """Who may ask."""

    NONE = auto()
    OPTIONAL_CLIENT = auto()
    CLIENT = auto()
    FEDERATION = auto()


NONE = Auth.NONE
OPTIONAL_CLIENT = Auth.OPTIONAL_CLIENT
CLIENT = Auth.CLIENT
FEDERATION = Auth.FEDERATION

DEFAULT_BODY_CAP = {
    Auth.NONE: 64 * KIB,
    Auth.OPTIONAL_CLIENT: 64 * KIB,
    Auth.CLIENT: 2 * MIB,
    Auth.FEDERATION: 2 * MIB,
}
"""A route with larger bodies says so with `body_cap`."""

TRANSACTION_BODY_CAP = 14 * MIB
"""For /send: 50 PDUs and 100 EDUs of full size are legal and make a good 13 MB."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is more than "200 with this JSON"."""

    status: int = 200
    json: Any = None
    """Sent as JSON, unless there is a body."""
    body: bytes | AsyncIterator[bytes] | None = None
    """Sent as it is. A stream needs a Content-Length among the headers, or goes out chunked."""
    headers: Mapping[str, str] = field(default_factory=dict)


type Handler = Callable[..., Awaitable[JsonObject | Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    paths: tuple[str, ...]
    auth: Auth
    body_cap: int
    max_depth: int
    """How deep its JSON may be nested."""
    limit: str | None
    """Name of the rate limit (rate_limits.py) that a request here counts against."""
    api: str
    """Which listeners serve it: "federation", "client", or "admin", which is the socket for `minihs`."""
    handler: Handler


class Routes:
    """The routes of one module, in the order of their declaration."""

    def __init__(self) -> None:
        self.all: list[Route] = []

    def add(
        self,
        method: str,
        path: str,
        *,
        auth: Auth,
        also: Iterable[str] = (),
        body_cap: int | None = None,
        max_depth: int = MAX_WIRE_DEPTH,
        limit: str | None = None,
    ) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            paths = tuple(alias for each in (path, *also) for alias in with_aliases(each))
            cap = DEFAULT_BODY_CAP[auth] if body_cap is None else body_cap
            self.all.append(Route(method, paths, auth, cap, max_depth, limit, api_of(path), handler))
            return handler

        return register

    def get(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("GET", path, **options)

    def put(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("PUT", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("POST", path, **options)

    def delete(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.add("DELETE", path, **options)


def with_aliases(path: str) -> Iterable[str]:
    yield path
    for prefix, others in (("/_matrix/client/v3/", ("r0",)), ("/_matrix/media/v3/", ("r0", "v1"))):
        if path.startswith(prefix):
            for other in others:
                yield prefix.replace("v3", other) + path.removeprefix(prefix)


FEDERATION_PREFIXES = ("/_matrix/federation/", "/_matrix/key/", "/.well-known/matrix/server")


def api_of(path: str) -> str:
    if path.startswith("/_minihs/admin/"):
        return "admin"
    return "federation" if path.startswith(FEDERATION_PREFIXES) else "client"


class QueryArgs:
    """The query string: decoded once, each parameter possibly several times."""

    __slots__ = ("_values",)

    def __init__(self, query_string: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        try:
            pairs = _pairs(query_string.decode("ascii"))
        except ValueError as error:
            raise invalid_param("The query string is not valid UTF-8, or has too many fields.") from error
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value."""
        values = self._values.get(name)
        return values[0] if values else default

    def getlist(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def require(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise missing_param(f"The query parameter {name} is missing.")
        return value

    @overload
    def get_int(self, name: str, *, min: int = ..., max: int = ...) -> int | None: ...
    @overload
    def get_int(self, name: str, default: int, min: int = ..., max: int = ...) -> int: ...
    def get_int(
        self, name: str, default: int | None = None, min: int = 0, max: int = 2**53 - 1
    ) -> int | None:
        """A whole number. Below `min` is an error; above `max` counts as `max`."""
        text = self.get(name)
        if text is None:
            return default
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
            raise invalid_param(f"The query parameter {name} must be a whole number.")
        value = int(text)
        if value < min:
            raise invalid_param(f"The query parameter {name} must be at least {min}.")
        return value if value < max else max

    def get_bool(self, name: str, default: bool = False) -> bool:
        text = self.get(name)
        if text is None:
            return default
        if text not in {"true", "false"}:
            raise invalid_param(f"The query parameter {name} must be true or false.")
        return text == "true"


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    if not text:
        return ()
    if "%" in text or "+" in text or text.count("&") >= MAX_QUERY_FIELDS:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    # Nothing in it is encoded, as in most: then it need not be looked for in each part.
    parts = [field.partition("=") for field in text.split("&") if field]
    return [(name, value) for name, _, value in parts]


class Call:
    """One request, as its handler sees it."""

    __slots__ = (
        "_body", "_json", "_json_read", "_query", "_requester", "has_floats", "headers", "method", "origin",
        "remote_address", "request", "route", "services",
    )  # fmt: skip

    def __init__(
        self, services: Services, request: BoundedRequest, route: Route, remote_address: str
    ) -> None:
        self.services = services
        self.request = request
        self.route = route
        self.method = request.method
        self.headers = request.headers
        self.remote_address = remote_address
        """IP address of the client (behind a trusted proxy: the one that the proxy names), or "unix"."""
        self.origin = ""
        """auth=FEDERATION: the server that signed this request."""
        self._requester: Requester | None = None
        self._query: QueryArgs | None = None
        self._body: bytes | None = None
        self._json: Any = None
        self._json_read = False
        self.has_floats = True
        """Whether there may be floats in the body that `json_value` gave."""

    @property
    def raw_uri(self) -> str:
        """Path and query as received, still encoded: what X-Matrix signs."""
        target: bytes = self.request.scope["state"]["target"]
        return target.decode("ascii")

    @property
    def requester(self) -> Requester:
        """auth=CLIENT: who asks."""
        if self._requester is None:
            raise RuntimeError(f"{self.route.paths[0]} needs auth=CLIENT to have a requester")
        return self._requester

    @property
    def active_requester(self) -> Requester:
        """The same, for what a suspended user may not do (client-server-api, "Account suspension")."""
        if self.requester.is_suspended:
            raise MatrixError(403, "M_USER_SUSPENDED", "You cannot perform this action while suspended.")
        return self.requester

    @property
    def maybe_requester(self) -> Requester | None:
        """auth=OPTIONAL_CLIENT: who asks, if the request had a token."""
        return self._requester

    def set_requester(self, requester: Requester | None) -> None:
        self._requester = requester

    @property
    def query(self) -> QueryArgs:
        if self._query is None:
            self._query = QueryArgs(self.request.query_string)
        return self._query

    async def body(self) -> bytes:
        """The whole body as received, within the route's cap."""
        if self._body is None:
            self._body = await self.request.body.read(self.route.body_cap)
        return self._body

    def stream(self, cap: int | None = None) -> AsyncIterator[bytes]:
        """The body in chunks, for uploads; not together with `body` or `json`."""
        return self.request.body.stream(self.route.body_cap if cap is None else cap)

    async def json_value(self, *, optional: bool = False) -> Any:
        """The body as any JSON value, parsed once. An empty body is {} if `optional`, else M_NOT_JSON."""
        if not self._json_read:
            data = await self.body()
            if not data and optional:
                return {}
            try:
                self._json, self.has_floats = canonical.read(data, max_depth=self.route.max_depth)
            except canonical.BadJson as error:
                raise not_json() from error
            self._json_read = True
        return self._json

    async def json(self, *, optional: bool = False) -> JsonObject:
        """The body as a JSON object. An empty body is {} if `optional`."""
        value = await self.json_value(optional=optional)
        if not isinstance(value, dict):
            raise bad_json("The body must be a JSON object.")
        return value


__all__ = [
    "CLIENT", "FEDERATION", "KIB", "MAX_CARRIED_DEPTH", "MIB", "NONE", "OPTIONAL_CLIENT",
    "TRANSACTION_BODY_CAP", "Answer", "Auth", "Call", "JsonObject", "MatrixError", "QueryArgs", "Requester",
    "Route", "Routes",
]  # fmt: skip
