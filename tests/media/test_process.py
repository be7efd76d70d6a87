# SPDX-License-Identifier: Apache-2.0
"""A server as a process: what 50 MB cost it in memory, and what kill -9 leaves of an upload."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import trio

from tests.interop.kit.authority import Authority
from tests.interop.kit.client import Client
from tests.interop.kit.homeserver import Place
from tests.interop.kit.minihs import Minihs
from tests.interop.kit.ports import free_port

MIB = 1024 * 1024
SIZE = 50 * MIB
PIECE = 64 * 1024


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Minihs, Client]]:
    port = free_port()
    place = Place(f"localhost:{port}", folder / "server", port, free_port(), Authority.create(folder / "ca"))
    async with Minihs(place) as server:
        assert isinstance(server, Minihs)
        client = await server.register("alice")
        try:
            yield server, client
        finally:
            await client.aclose()


class Exchange:
    """One request over plain HTTP whose body is neither held here nor there."""

    def __init__(self, stream: trio.abc.Stream, head: bytes) -> None:
        self.stream = stream
        self.head = head
        self.http = h11.Connection(h11.CLIENT, 1 << 20)

    @classmethod
    async def begin(cls, server: Minihs, client: Client, method: str, path: str, size: int) -> Exchange:
        stream = await trio.open_tcp_stream("127.0.0.1", server.place.client_port)
        exchange = cls(stream, b"")
        headers = [("Host", "x"), ("Authorization", f"Bearer {client.token}"), ("Content-Length", str(size))]
        await exchange.send(h11.Request(method=method, target=path, headers=headers))
        return exchange

    async def send(self, event: h11.Event) -> None:
        await self.stream.send_all(self.http.send(event) or b"")

    async def answer(self) -> tuple[int, bytes, int, str]:
        """Status, the beginning of the body, its size, and its hash."""
        status, beginning, size, digest = 0, b"", 0, hashlib.sha256()
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(bytes(await self.stream.receive_some(PIECE)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                beginning = beginning or bytes(event.data[:2000])
                size += len(event.data)
                digest.update(event.data)
            else:
                await self.stream.aclose()
                return status, beginning, size, digest.hexdigest()


def piece(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (PIECE // 32)


def run(scenario: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    """In real time: this folder's tests otherwise have a clock that jumps."""
    trio.run(scenario, *arguments)


def test_fifty_megabytes_go_in_and_out_in_little_memory(tmp_path: Path) -> None:
    run(in_little_memory, tmp_path)


async def in_little_memory(folder: Path) -> None:
    async with running(folder) as (server, client):
        upload = "/_matrix/media/v3/upload"
        await (
            await Exchange.begin(server, client, "POST", upload, 0)
        ).answer()  # what is loaded on first use
        server.forget_peak()
        before = server.peak_rss_bytes()
        exchange = await Exchange.begin(server, client, "POST", upload, SIZE)
        digest = hashlib.sha256()
        for number in range(SIZE // PIECE):
            digest.update(piece(number))
            await exchange.send(h11.Data(data=piece(number)))
        await exchange.send(h11.EndOfMessage())
        status, body, _, _ = await exchange.answer()
        assert status == 200, body
        uploading = server.peak_rss_bytes() - before

        uri = body.decode().partition("mxc://")[2].partition('"')[0]
        server.forget_peak()
        before = server.peak_rss_bytes()
        exchange = await Exchange.begin(server, client, "GET", f"/_matrix/client/v1/media/download/{uri}", 0)
        assert (await exchange.answer())[::2] == (200, SIZE)
        exchange = await Exchange.begin(server, client, "GET", f"/_matrix/client/v1/media/download/{uri}", 0)
        assert (await exchange.answer())[3] == digest.hexdigest()
        downloading = server.peak_rss_bytes() - before
    print(f"memory: uploading {uploading / MIB:.1f} MiB, downloading {downloading / MIB:.1f} MiB")
    assert uploading < 6 * MIB
    assert downloading < 6 * MIB


def test_a_killed_upload_leaves_nothing_half_and_a_finished_one_stays(tmp_path: Path) -> None:
    run(killed_upload, tmp_path)


async def killed_upload(folder: Path) -> None:
    async with running(folder) as (server, client):
        upload = "/_matrix/media/v3/upload"
        whole = await Exchange.begin(server, client, "POST", upload, PIECE)
        await whole.send(h11.Data(data=piece(1)))
        await whole.send(h11.EndOfMessage())
        status, body, _, _ = await whole.answer()
        assert status == 200
        uri = body.decode().partition("mxc://")[2].partition('"')[0]

        half = await Exchange.begin(server, client, "POST", upload, SIZE)
        for number in range(100):
            await half.send(h11.Data(data=piece(number)))
        incoming = server.data_dir / "media" / "incoming"
        with trio.fail_after(20):
            while not any(path.stat().st_size > MIB for path in incoming.iterdir()):  # noqa: ASYNC110
                await trio.sleep(0.02)
        await server.kill()
        assert list(incoming.iterdir())
        await half.stream.aclose()

        await server.start()
        with trio.fail_after(20):
            while list(incoming.iterdir()):  # noqa: ASYNC110
                await trio.sleep(0.02)
        exchange = await Exchange.begin(server, client, "GET", f"/_matrix/client/v1/media/download/{uri}", 0)
        status, _, size, digest = await exchange.answer()
        assert (status, size, digest) == (200, PIECE, hashlib.sha256(piece(1)).hexdigest())
        files = [path for path in (server.data_dir / "media").rglob("*") if path.is_file()]
        assert len(files) == 1
