# SPDX-License-Identifier: Apache-2.0
"""The web edge with real media behind it, and pictures to put into it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import trio
from PIL import Image

from minihs.media.service import Media
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store.database import Database
from minihs.testing.clock import VirtualClock, virtual_runtime
from tests.web.kit import House, Response, make_edge, make_services

SERVER = "example.org"
V1 = "/_matrix/client/v1/media"
V3 = "/_matrix/media/v3"

PEOPLE = {
    "alice": Requester("@alice:example.org", "PHONE", 1),
    "bob": Requester("@bob:example.org", "PHONE", 2),
    "suspended": Requester("@carol:example.org", "PHONE", 3, is_suspended=True),
}


class People:
    """Whoever says a name as the token is that person."""

    def requester_for_token(self, token: str, remote_address: str | None = None) -> Requester | None:
        return PEOPLE.get(token)


class MediaHouse:
    def __init__(self, house: House, media: Media, db: Database, runtime: Runtime, folder: Path) -> None:
        self.house = house
        self.media = media
        self.db = db
        self.runtime = runtime
        self.folder = folder / "media"

    @property
    def clock(self) -> VirtualClock:
        return cast("VirtualClock", self.runtime.clock)

    async def ask(self, method: str, target: str, *, who: str | None = "alice", **more: Any) -> Response:
        return await self.house.ask(method, target, token=who, **more)

    async def upload(
        self,
        content: bytes,
        content_type: str | None = None,
        filename: str | None = None,
        *,
        who: str = "alice",
    ) -> str:
        """The media id."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        query = "" if filename is None else f"?filename={quote(filename, safe='')}"
        answer = await self.ask("POST", f"{V3}/upload{query}", who=who, body=content, headers=headers)
        assert answer.status == 200, answer
        uri: str = answer.json["content_uri"]
        assert uri.startswith(f"mxc://{SERVER}/")
        return uri.rpartition("/")[2]

    async def download(self, media_id: str, suffix: str = "", **more: Any) -> Response:
        return await self.ask("GET", f"{V1}/download/{SERVER}/{media_id}{suffix}", **more)

    async def thumbnail(self, media_id: str, width: int, height: int, method: str = "scale") -> Response:
        query = f"width={width}&height={height}&method={method}"
        return await self.ask("GET", f"{V1}/thumbnail/{SERVER}/{media_id}?{query}")

    def files(self) -> list[Path]:
        """All files of the media folder."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def open_files(self) -> list[str]:
        """What this process has open of the media folder."""
        links = [
            os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if _exists(each)
        ]
        return [link for link in links if link.startswith(str(self.folder))]

    def rows(self, sql: str) -> list[Any]:
        return self.db.read.execute(sql).fetchall()


class NoPeers:
    """Nobody is out there."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked of another server")


@asynccontextmanager
async def open_media(
    folder: Path, *, runtime: Runtime | None = None, run: bool = True, **media: Any
) -> AsyncIterator[MediaHouse]:
    """`run`: with its housekeeping."""
    runtime = runtime or virtual_runtime()
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - the disk of a test
    services = make_services(data_dir=str(folder), media=media, rate_limits={"enabled": False})
    async with (
        Database.open(folder / "minihs.db", runtime, inline=True, synchronous="OFF") as db,
        trio.open_nursery() as nursery,
    ):
        nobody = cast(Any, NoPeers())
        parts = Media(db, runtime, services.config, peers=nobody, web=nobody, nursery=nursery)
        services = replace(services, runtime=runtime, db=db, media=parts, users=cast(Any, People()))
        if run:
            nursery.start_soon(parts.run)
        yield MediaHouse(House(make_edge(services=services), nursery), parts, db, runtime, folder)
        nursery.cancel_scope.cancel()


def _exists(descriptor: str) -> bool:
    """The listing itself had one more."""
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


# -- pictures --


def picture(
    size: tuple[int, int] = (200, 100), kind: str = "PNG", mode: str = "RGB", **options: Any
) -> bytes:
    """A picture with something in it."""
    image = Image.linear_gradient("L").resize(size).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
    return encoded(image, kind, **options)


def moving_picture(size: tuple[int, int] = (20, 10), kind: str = "GIF") -> bytes:
    frames = [Image.new("RGB", size, (shade, 0, 255 - shade)) for shade in (0, 100, 200)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def png_bomb(side: int = 50_000) -> bytes:
    """A few kilobytes that say they are a picture of side × side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(5_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
