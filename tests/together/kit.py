# SPDX-License-Identifier: Apache-2.0
"""Servers, and a peer that asks them what the test wants to know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from minihs.matrix.event import build_event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.testing.api import ApiClient
from minihs.testing.hostile import ScriptedPeer
from minihs.testing.servers import Cluster, cluster

MALLORY = "@mallory:peer.test"
V1 = "/_matrix/federation/v1"


def seg(text: str) -> str:
    return quote(text, safe="")


@dataclass
class Scene:
    """one.test with alice, and a peer that signs its questions as peer.test."""

    world: Cluster
    alice: ApiClient
    peer: ScriptedPeer

    async def ask(self, method: str, uri: str, content: Any = None) -> tuple[int, Any]:
        return await self.peer.request(method, "one.test", uri, content)


@asynccontextmanager
async def scene(folder: Path, *names: str, **settings: Any) -> AsyncIterator[Scene]:
    async with cluster("one.test", *names, folder=folder, **settings) as world:
        peer = ScriptedPeer(world.internet, "peer.test", clock=world.clock)
        yield Scene(world, await world["one.test"].user("alice"), peer)


async def with_mallory(at: Scene) -> str:
    """A room in which a user of the peer is, as far as one.test can tell."""
    room = await at.alice.create_room(preset="public_chat")
    mallory = MALLORY
    uri = f"{V1}/make_join/{room}/{mallory}?ver=12"
    status, template = await at.ask("GET", uri)
    assert status == 200
    event = template["event"]
    join = build_event(
        version=ROOM_VERSIONS["12"],
        room_id=room,
        type="m.room.member",
        sender=mallory,
        state_key=mallory,
        content={"membership": "join"},
        depth=event["depth"],
        prev_events=event["prev_events"],
        auth_events=event["auth_events"],
        origin_server_ts=at.world.clock.now_ms(),
        server_name="peer.test",
        key=at.peer.key,
    )
    status, answer = await at.ask(
        "PUT", f"/_matrix/federation/v2/send_join/{room}/{join.event_id}", join.json
    )
    assert status == 200, answer
    return room


async def tell(at: Scene, txn: str, *edus: Any) -> None:
    body = {
        "origin": "peer.test",
        "origin_server_ts": 0,
        "pdus": [],
        "edus": [{"edu_type": kind, "content": content} for kind, content in edus],
    }
    status, _ = await at.ask("PUT", f"{V1}/send/{txn}", body)
    assert status == 200
