# SPDX-License-Identifier: Apache-2.0
"""Servers, and a peer that asks them what the test wants to know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from minihs.testing.api import ApiClient
from minihs.testing.hostile import ScriptedPeer
from minihs.testing.servers import Cluster, cluster

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
