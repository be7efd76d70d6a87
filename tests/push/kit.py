# SPDX-License-Identifier: Apache-2.0
"""A push gateway on the in-memory internet, and a household that uses it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11
import trio

from minihs.testing.api import ApiClient
from minihs.testing.internet import SocketAddress
from minihs.testing.servers import Cluster, cluster

type Json = dict[str, Any]

PATH = "/_matrix/push/v1/notify"
URL = f"https://push.test{PATH}"


class PushGateway:
    """Remembers the notifications that it was sent."""

    def __init__(self) -> None:
        self.received: list[Json] = []
        self.status = 200
        self.answer: Any = {"rejected": []}

    async def handle(self, stream: trio.abc.Stream, peer: SocketAddress, local: SocketAddress) -> None:
        http = h11.Connection(h11.SERVER)
        body, head = b"", None
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return
        assert head is not None
        assert (head.method, head.target) == (b"POST", PATH.encode())
        if self.status == 200:
            self.received.append(json.loads(body)["notification"])
        answer = json.dumps(self.answer).encode()
        length = ("Content-Length", str(len(answer)))
        out = (
            http.send(h11.Response(status_code=self.status, headers=[length, ("Connection", "close")])) or b""
        )
        await stream.send_all(out + (http.send(h11.Data(data=answer)) or b""))

    def take(self) -> list[Json]:
        """What came since the last look."""
        received, self.received = self.received, []
        return received

    def bodies(self) -> list[str]:
        """The messages among what came; counts alone are left out."""
        return [each["content"]["body"] for each in self.take() if "content" in each]


class Home:
    def __init__(self, world: Cluster, gateway: PushGateway) -> None:
        self.world = world
        self.gateway = gateway

    async def user(self, name: str, server: str = "one.test") -> ApiClient:
        return await self.world[server].user(name)

    async def two_in_a_room(self, **request: Any) -> tuple[ApiClient, ApiClient, str]:
        """Alice and Bob, who has a pusher."""
        alice, bob = await self.user("alice"), await self.user("bob")
        room_id = await alice.create_room(preset="public_chat", **request)
        await bob.join(room_id)
        await add_pusher(bob)
        await rest()
        return alice, bob, room_id


async def add_pusher(client: ApiClient, pushkey: str = "key", **more: Any) -> None:
    await client.post("/pushers/set", pusher(pushkey, **more))


def pusher(pushkey: str = "key", **more: Any) -> Json:
    return {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": pushkey,
        "app_display_name": "Example",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": URL, "custom": 1},
        **more,
    }


async def read(client: ApiClient, room_id: str, event_id: str) -> None:
    await client.post(f"/rooms/{quote(room_id, safe='')}/receipt/m.read/{quote(event_id, safe='')}", {})


async def rest(seconds: float = 5.0) -> None:
    """Let what has been started come to its end."""
    await trio.sleep(seconds)


@asynccontextmanager
async def new_home(folder: Path, *names: str, **settings: Any) -> AsyncIterator[Home]:
    async with cluster(*(names or ("one.test",)), folder=folder, **settings) as world:
        gateway = PushGateway()
        host = world.internet.host("push.test")
        host.listen(443, gateway.handle)
        host.listen(80, gateway.handle, tls=False)
        yield Home(world, gateway)
