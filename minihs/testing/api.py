# SPDX-License-Identifier: Apache-2.0
"""A client of the client-server API, on the in-memory internet: thin, and quick to write tests with."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote, urlencode

import httpcore2

from minihs.federation import http
from minihs.federation.addresses import AddressPolicy
from minihs.federation.connections import Connections
from minihs.federation.dial import Dialler, Target
from minihs.matrix.ids import parse_server_name
from minihs.testing.internet import Internet

CLIENT = "/_matrix/client/v3"
MAX_ANSWER = 64 * 1024 * 1024


class ApiError(AssertionError):
    """The server refused what the test took for granted."""

    def __init__(self, method: str, path: str, status: int, body: Any) -> None:
        super().__init__(f"{method} {path}: {status} {body}")
        self.status = status
        self.body = body
        self.errcode = body.get("errcode") if isinstance(body, dict) else None


class ApiClient:
    """One device of one user, once it has logged in."""

    def __init__(self, internet: Internet, server_name: str) -> None:
        name = parse_server_name(server_name)
        assert name is not None
        self._name = name
        self._server_name = server_name
        host = internet.host(f"clients-of.{name.host}")
        dialler = Dialler(host.network, host.resolver, AddressPolicy(), internet.client_tls())
        target = Target(name.host, name.port or 8448)
        self._url = httpcore2.URL(scheme="https", host=name.host, port=target.port, target="/")
        self._pool = Connections(dialler, lambda: [target], most=4)
        self._txn = itertools.count()
        self.user_id = ""
        self.device_id = ""
        self.token = ""
        self.since: str | None = None

    def __repr__(self) -> str:
        return f"<ApiClient {self.user_id or 'nobody'} {self.device_id}>"

    # -- any request --

    async def ask(
        self, method: str, path: str, body: Any = None, *, query: dict[str, Any] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON. A path that does not begin with /_matrix or /_synapse is one of client v3."""
        if not path.startswith(("/_matrix/", "/_synapse/", "/.well-known/")):
            path = CLIENT + path
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, doseq=True)
        headers = [("Host", self._server_name)]
        if self.token:
            headers.append(("Authorization", f"Bearer {self.token}"))
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        url = httpcore2.URL(scheme="https", host=self._url.host, port=self._url.port, target=path)
        async with http.exchange(self._pool, method, url, headers, content) as response:
            raw = await http.read_body(response, MAX_ANSWER)
        return response.status, json.loads(raw) if raw else None

    async def do(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of a success; ApiError otherwise."""
        status, answer = await self.ask(method, path, body, query=query)
        if status != 200:
            raise ApiError(method, path, status, answer)
        return answer

    async def get(self, path: str, **query: Any) -> Any:
        return await self.do("GET", path, **query)

    async def put(self, path: str, body: Any, **query: Any) -> Any:
        return await self.do("PUT", path, body, **query)

    async def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return await self.do("POST", path, {} if body is None else body, **query)

    # -- what most tests begin with --

    async def register(self, localpart: str, password: str) -> None:
        answer = await self.post(
            "/register", {"username": localpart, "password": password, "auth": {"type": "m.login.dummy"}}
        )
        self.user_id, self.device_id, self.token = (
            answer["user_id"],
            answer["device_id"],
            answer["access_token"],
        )

    async def create_room(self, **request: Any) -> str:
        return str((await self.post("/createRoom", request))["room_id"])

    async def join(self, room: str, *via: str) -> str:
        return str((await self.post(f"/join/{quote(room, safe='')}", {}, server_name=list(via)))["room_id"])

    async def leave(self, room_id: str) -> None:
        await self.post(f"/rooms/{quote(room_id, safe='')}/leave", {})

    async def invite(self, room_id: str, user_id: str) -> None:
        await self.post(f"/rooms/{quote(room_id, safe='')}/invite", {"user_id": user_id})

    async def send(self, room_id: str, text: str) -> str:
        """A text message; its event id."""
        return await self.send_event(room_id, "m.room.message", {"msgtype": "m.text", "body": text})

    async def send_event(self, room_id: str, event_type: str, content: Any) -> str:
        path = f"/rooms/{quote(room_id, safe='')}/send/{quote(event_type, safe='')}/t{next(self._txn)}"
        return str((await self.put(path, content))["event_id"])

    async def set_state(self, room_id: str, event_type: str, content: Any, state_key: str = "") -> str:
        path = (
            f"/rooms/{quote(room_id, safe='')}/state/{quote(event_type, safe='')}/{quote(state_key, safe='')}"
        )
        return str((await self.put(path, content))["event_id"])

    async def state(self, room_id: str) -> dict[tuple[str, str], Any]:
        """The current state: (type, state key) to event."""
        events = await self.get(f"/rooms/{quote(room_id, safe='')}/state")
        return {(event["type"], event["state_key"]): event for event in events}

    async def messages(self, room_id: str, **query: Any) -> list[Any]:
        """What /messages gives, newest first unless asked otherwise."""
        query = {"dir": "b", "limit": 100, **query}
        return list((await self.get(f"/rooms/{quote(room_id, safe='')}/messages", **query))["chunk"])

    async def texts(self, room_id: str) -> list[str]:
        """The bodies of the messages, oldest first."""
        events = await self.messages(room_id)
        return [event["content"]["body"] for event in reversed(events) if "body" in event["content"]]

    async def sync(self, timeout_ms: int = 0, **query: Any) -> Any:
        """The next /sync."""
        if self.since is not None:
            query["since"] = self.since
        answer = await self.get("/sync", timeout=timeout_ms, **query)
        self.since = answer["next_batch"]
        return answer
