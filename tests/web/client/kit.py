# SPDX-License-Identifier: Apache-2.0
"""The client API with a real database behind it, reached over in-memory connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from minihs.e2ee.service import E2ee
from minihs.push.rules import PushRules
from minihs.runtime import Runtime
from minihs.store import ids, rooms
from minihs.store.database import Database, Tx
from minihs.testing.clock import VirtualClock, virtual_runtime
from minihs.users.passwords import Passwords
from minihs.users.service import Users
from tests.web.kit import House, Response, make_edge, make_services

SERVER = "example.org"
V3 = "/_matrix/client/v3"
PASSWORD = "correct horse battery staple"


class RecordingRooms:
    """Stands for rooms: remembers what it was asked for."""

    def __init__(self) -> None:
        self.profiles: list[str] = []
        self.left: list[tuple[str, str]] = []

    async def update_profile(self, user_id: str) -> None:
        self.profiles.append(user_id)

    async def leave(self, user_id: str, room_id: str, reason: str | None = None) -> object:
        self.left.append((user_id, room_id))
        return None


class Client:
    """A logged-in device."""

    def __init__(self, server: TestServer, login: dict[str, Any]) -> None:
        self.server = server
        self.user_id: str = login["user_id"]
        self.device_id: str = login["device_id"]
        self.token: str = login["access_token"]
        self.login = login

    @property
    def path(self) -> str:
        """`/user/{userId}` under the v3 prefix."""
        return f"{V3}/user/{quote(self.user_id, safe='')}"

    async def ask(self, method: str, target: str, body: Any = b"") -> Response:
        if target.startswith("/") and not target.startswith("/_"):
            target = V3 + target
        return await self.server.house.ask(method, target, body=body, token=self.token)

    async def get(self, target: str) -> Response:
        return await self.ask("GET", target)

    async def put(self, target: str, body: Any) -> Response:
        return await self.ask("PUT", target, body)

    async def post(self, target: str, body: Any) -> Response:
        return await self.ask("POST", target, body)

    async def delete(self, target: str, body: Any = b"") -> Response:
        return await self.ask("DELETE", target, body)

    async def confirmed(
        self, method: str, target: str, body: dict[str, Any], password: str = PASSWORD
    ) -> Response:
        """A request with User-Interactive Authentication by password, its challenge included."""
        challenge = await self.ask(method, target, body)
        assert challenge.status == 401, challenge
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user_id},
            "password": password,
            "session": challenge.json["session"],
        }
        return await self.ask(method, target, {**body, "auth": auth})


class TestServer:
    __test__ = False

    def __init__(self, house: House, db: Database, users: Users, e2ee: E2ee, runtime: Runtime) -> None:
        self.house = house
        self.db = db
        self.users = users
        self.e2ee = e2ee
        self.runtime = runtime
        self.rooms = RecordingRooms()

    @property
    def clock(self) -> VirtualClock:
        clock = self.runtime.clock
        assert isinstance(clock, VirtualClock)
        return clock

    async def ask(self, method: str, target: str, body: Any = b"") -> Response:
        """A request without a token."""
        return await self.house.ask(method, target if target.startswith("/_") else V3 + target, body=body)

    async def user(self, localpart: str, **login: Any) -> Client:
        """A new account, logged in once."""
        await self.users.create_account(localpart, PASSWORD)
        return await self.login(localpart, **login)

    async def login(self, localpart: str, password: str = PASSWORD, **more: Any) -> Client:
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": localpart},
            "password": password,
            **more,
        }
        answer = await self.ask("POST", "/login", body)
        assert answer.status == 200, answer
        return Client(self, answer.json)

    async def share_a_room(self, *user_ids: str, room_id: str = "!shared:example.org") -> None:
        """Write memberships straight into the database."""

        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, room_id, "11")
            for user_id in user_ids:
                host = user_id.partition(":")[2]
                host_nid = ids.intern_host(tx, host)
                tx.execute(
                    "INSERT INTO memberships (room_nid, user_id, host_nid, membership, event_nid, local, "
                    "pos) "
                    "VALUES (?, ?, ?, 'join', 0, ?, ?)",
                    (room_nid, user_id, host_nid, int(host == SERVER), tx.next_pos()),
                )
                tx.execute(
                    "INSERT INTO room_hosts VALUES (?, ?, 1) "
                    "ON CONFLICT (room_nid, host_nid) DO UPDATE SET joined = joined + 1",
                    (room_nid, host_nid),
                )

        await self.db.write(write)

    def pos(self) -> int:
        return int(self.db.read.execute("SELECT pos FROM stream").fetchone()[0])

    def edus(self, edu_type: str) -> list[tuple[str, Any]]:
        """What waits for other servers: (host, content)."""
        import json

        rows = self.db.read.execute(
            "SELECT h.host, e.edu FROM outbound_edus e JOIN hosts h USING (host_nid) ORDER BY e.seq"
        ).fetchall()
        edus = [(host, json.loads(edu)) for host, edu in rows]
        return [(host, edu["content"]) for host, edu in edus if edu["edu_type"] == edu_type]

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self.db.read.execute(sql, values).fetchall()


def refused(response: Response, status: int, errcode: str) -> bool:
    return response.status == status and response.json.get("errcode") == errcode and "error" in response.json


def without_rate_limits(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {"rate_limits": {"enabled": False}, **dict(settings)}


@asynccontextmanager
async def open_server(
    folder: Path, federation: Any = None, rooms: RecordingRooms | None = None, **settings: Any
) -> AsyncIterator[TestServer]:
    runtime = virtual_runtime()
    services = make_services(**without_rate_limits(settings.items()))
    rooms = rooms or RecordingRooms()
    async with (
        Database.open(folder / "minihs.db", runtime, inline=True, synchronous="OFF") as db,
        trio.open_nursery() as nursery,
    ):
        users = Users(
            db,
            runtime,
            services.config,
            rooms=rooms,
            federation=federation,
            passwords=Passwords(runtime, time_cost=1, memory_kib=64),
        )
        e2ee = E2ee(db, runtime, services.config, federation=federation)
        services = replace(services, runtime=runtime, db=db, users=users, e2ee=e2ee, push_rules=PushRules(db))
        nursery.start_soon(users.run)
        server = TestServer(House(make_edge(services=services), nursery), db, users, e2ee, runtime)
        server.rooms = rooms
        yield server
        nursery.cancel_scope.cancel()
