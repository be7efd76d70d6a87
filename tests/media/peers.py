# SPDX-License-Identifier: Apache-2.0
"""A whole server on the in-memory internet, and a peer whose answers about media a test writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore2

from minihs.federation import http
from minihs.matrix import canonical
from minihs.media.multipart import Frame
from minihs.testing.api import ApiClient
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from minihs.testing.servers import Cluster, TestServer, cluster

DOWNLOAD = "/_matrix/federation/v1/media/download/"
LEGACY = "/_matrix/media/v3/download/"
V1 = "/_matrix/client/v1/media"
V3 = "/_matrix/media/v3"
UNKNOWN = Reply(404, {"errcode": "M_UNRECOGNIZED", "error": "What?"})


@dataclass(frozen=True, slots=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return canonical.loads(self.body)

    def refused(self, status: int, errcode: str) -> bool:
        return self.status == status and self.json["errcode"] == errcode


async def ask(
    client: ApiClient,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Got:
    """A request whose answer is not JSON."""
    fields = [("Host", client._server_name), ("Authorization", f"Bearer {client.token}"), *headers]
    if body is not None:
        fields.append(("Content-Length", str(len(body))))
    url = httpcore2.URL(scheme="https", host=client._url.host, port=client._url.port, target=path)
    async with http.exchange(client._pool, method, url, fields, body) as response:
        return Got(response.status, http.headers_of(response), await http.read_body(response, 1 << 28))


async def upload(client: ApiClient, content: bytes, content_type: str, name: str = "") -> tuple[str, str]:
    """(server name, media id)"""
    query = f"?filename={name}" if name else ""
    got = await ask(client, "POST", f"{V3}/upload{query}", content, [("Content-Type", content_type)])
    assert got.status == 200, got
    server, _, media_id = got.json["content_uri"].removeprefix("mxc://").partition("/")
    return server, media_id


async def download(client: ApiClient, server: str, media_id: str, query: str = "") -> Got:
    return await ask(client, "GET", f"{V1}/download/{server}/{media_id}{query}")


def multipart(content: bytes, **headers: str) -> Reply:
    """What a well-behaved server answers. Underscores in names of headers are dashes."""
    return framed(content, b"{}", headers)


def framed(content: bytes, json: bytes, headers: Mapping[str, str]) -> Reply:
    frame = Frame("frontier", {name.replace("_", "-"): value for name, value in headers.items()})
    body = frame.before.replace(b"{}", json, 1) + content + frame.after
    # The peer's own Content-Type comes first and says JSON; the last one counts here.
    return Reply(body=body, headers=[("Content-Type", frame.content_type)])


class Stage:
    def __init__(self, world: Cluster, peer: ScriptedPeer, alice: ApiClient) -> None:
        self.world = world
        self.peer = peer
        self.alice = alice

    @property
    def server(self) -> TestServer:
        return self.world["one.test"]

    @property
    def folder(self) -> Path:
        return self.server.config.data_path / "media"

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def rows(self, sql: str) -> list[Any]:
        return self.server.server.services.db.read.execute(sql).fetchall()

    async def get(self, media_id: str, query: str = "") -> Got:
        """Alice asks her server for a file of the peer."""
        return await download(self.alice, "peer.test", media_id, query)

    def asked(self, prefix: str = DOWNLOAD) -> list[Received]:
        return self.peer.received(prefix)


@asynccontextmanager
async def stage(folder: Path, **media: Any) -> AsyncIterator[Stage]:
    async with cluster("one.test", folder=folder, media=media) as world:
        peer = ScriptedPeer(world.internet, "peer.test", clock=world.clock)
        yield Stage(world, peer, await world["one.test"].user("alice"))
