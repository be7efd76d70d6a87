# SPDX-License-Identifier: Apache-2.0
"""The whole server, rooms and sync included, reached over in-memory connections. It knows no other server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from minihs import config
from minihs.server import Server
from minihs.testing.clock import virtual_runtime
from tests.web.client.kit import PASSWORD, SERVER, V3
from tests.web.kit import House, Response

type Json = dict[str, Any]


class Person:
    """A user's device."""

    def __init__(self, house: House, login: Json) -> None:
        self.house = house
        self.user_id: str = login["user_id"]
        self.token: str = login["access_token"]
        self._txn = 0

    async def ask(self, method: str, target: str, body: Any = b"") -> Response:
        path = target if target.startswith("/_") else V3 + target
        return await self.house.ask(method, path, body=body, token=self.token)

    async def get(self, target: str) -> Json:
        return self._good(await self.ask("GET", target))

    async def post(self, target: str, body: Any = None) -> Json:
        return self._good(await self.ask("POST", target, {} if body is None else body))

    async def put(self, target: str, body: Any = None) -> Json:
        return self._good(await self.ask("PUT", target, {} if body is None else body))

    async def room(self, **request: Any) -> str:
        made = await self.post("/createRoom", {"preset": "public_chat", **request})
        room_id: str = made["room_id"]
        return room_id

    async def say(self, room: str, text: str) -> str:
        self._txn += 1
        sent = await self.put(
            f"/rooms/{quote(room)}/send/m.room.message/{self._txn}", {"msgtype": "m.text", "body": text}
        )
        event_id: str = sent["event_id"]
        return event_id

    async def sync(self, since: str = "", **query: Any) -> Json:
        if since:
            query["since"] = since
        fields = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        return await self.get(f"/sync?{fields}")

    @staticmethod
    def _good(response: Response) -> Json:
        assert response.status == 200, response
        answer: Json = response.json
        return answer


class TestHome:
    __test__ = False

    def __init__(self, server: Server, house: House) -> None:
        self.server = server
        self.house = house

    async def person(self, localpart: str, device: str | None = None) -> Person:
        """A user, made at their first login."""
        if not self.server.services.users.exists(f"@{localpart}:{SERVER}"):
            await self.server.services.users.create_account(localpart, PASSWORD)
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": localpart},
            "password": PASSWORD,
            **({"device_id": device} if device else {}),
        }
        answer = await self.house.ask("POST", V3 + "/login", body=body)
        assert answer.status == 200, answer
        return Person(self.house, answer.json)


@asynccontextmanager
async def open_home(folder: Path, **settings: Any) -> AsyncIterator[TestHome]:
    checked = config.check(
        config.from_mapping(
            {
                "server_name": SERVER,
                "data_dir": str(folder),
                "rate_limits": {"enabled": False},
                **settings,
            }
        ),
        folder,
    )
    async with (
        Server.open(checked, virtual_runtime(), inline_database=True) as server,
        trio.open_nursery() as nursery,
    ):
        yield TestHome(server, House(server.edge, nursery))
        nursery.cancel_scope.cancel()
