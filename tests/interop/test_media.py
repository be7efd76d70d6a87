# SPDX-License-Identifier: Apache-2.0
"""Files travel between servers, both ways: what one uploads, a user of the other sees."""

from __future__ import annotations

import io
import os
import uuid
from dataclasses import dataclass

import pytest
import trio
from PIL import Image

from tests.interop.conftest import Stage
from tests.interop.kit.client import Client, segment
from tests.interop.kit.http import Response

UPLOAD = "/_matrix/media/v3/upload"
V1 = "/_matrix/client/v1/media"


@dataclass(frozen=True, slots=True)
class Uri:
    server: str
    media_id: str

    @classmethod
    def of(cls, text: str) -> Uri:
        server, _, media_id = text.removeprefix("mxc://").partition("/")
        return cls(server, media_id)

    @property
    def path(self) -> str:
        return f"{segment(self.server)}/{self.media_id}"


async def ask(client: Client, method: str, path: str, body: bytes = b"", content_type: str = "") -> Response:
    headers = [("Authorization", f"Bearer {client.token}")]
    if content_type:
        headers.append(("Content-Type", content_type))
    return await client.http.request(method, path, headers=headers, body=body)


async def upload(client: Client, content: bytes, content_type: str, name: str = "") -> Uri:
    query = f"?filename={segment(name)}" if name else ""
    answer = await ask(client, "POST", UPLOAD + query, content, content_type)
    assert answer.status == 200, answer
    return Uri.of(answer.json()["content_uri"])


async def download(client: Client, uri: Uri) -> Response:
    return await ask(client, "GET", f"{V1}/download/{uri.path}")


def picture(size: tuple[int, int]) -> bytes:
    target = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(target, "PNG")
    return target.getvalue()


async def test_a_file_uploaded_on_one_server_is_downloaded_from_the_other(stage: Stage) -> None:
    content = os.urandom(300_000)
    uri = await upload(stage.host, content, "application/x-thing", "thing one.bin")

    got = await download(stage.guest, uri)

    assert (got.status, got.body) == (200, content)
    assert got.headers["content-type"] == "application/x-thing"
    assert got.headers["content-disposition"].startswith("attachment")
    assert "thing one.bin" in got.headers["content-disposition"].replace("%20", " ").replace("\\", "")
    assert (await download(stage.guest, uri)).body == content


async def test_a_large_file_arrives_whole(stage: Stage) -> None:
    content = os.urandom(20 * 1024 * 1024)
    uri = await upload(stage.host, content, "video/mp4")

    got = await download(stage.guest, uri)

    assert got.body == content
    assert got.headers["content-disposition"].startswith("inline")


@pytest.mark.parametrize("name", ["Käse 🧀.txt", 'quoted "name".txt', "semi;colon.txt", "plain.txt"])
async def test_a_file_name_arrives_as_it_was(stage: Stage, name: str) -> None:
    uri = await upload(stage.host, name.encode(), "text/plain", name)

    near, far = await download(stage.host, uri), await download(stage.guest, uri)

    assert far.body == name.encode()
    for answer in (near, far):
        header = answer.headers["content-disposition"]
        assert segment(name).lower() in header.lower() or f'"{name}"' in header or f"={name}" in header, (
            header
        )


async def test_a_picture_elsewhere_has_thumbnails_here(stage: Stage) -> None:
    uri = await upload(stage.host, picture((1000, 500)), "image/png")

    for query, size in (
        ("width=96&height=96&method=crop", (96, 96)),
        ("width=320&height=240&method=scale", (320, 160)),
    ):
        got = await ask(stage.guest, "GET", f"{V1}/thumbnail/{uri.path}?{query}")
        assert got.status == 200, got
        assert Image.open(io.BytesIO(got.body)).size == size
        assert got.headers["content-type"] in ("image/png", "image/jpeg", "image/webp")
        assert got.headers["content-disposition"].startswith("inline")


async def test_a_file_that_does_not_exist_elsewhere_is_not_found(stage: Stage) -> None:
    got = await download(stage.guest, Uri(stage.home.server_name, uuid.uuid4().hex))

    assert (got.status, got.json()["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_file_announced_first_and_uploaded_later_arrives(stage: Stage) -> None:
    created = await ask(stage.host, "POST", "/_matrix/media/v1/create")
    uri = Uri.of(created.json()["content_uri"])

    early = await ask(stage.guest, "GET", f"{V1}/download/{uri.path}?timeout_ms=100")
    assert early.status in (502, 504), early  # Synapse says only that it could not fetch it

    put = await ask(stage.host, "PUT", f"/_matrix/media/v3/upload/{uri.path}", b"late", "text/plain")
    assert put.status == 200, put
    # Synapse takes the 504 for a failing server, and asks again only after its backoff.
    with trio.fail_after(30):
        while (got := await download(stage.guest, uri)).status != 200:  # noqa: ASYNC110 - theirs to know
            await trio.sleep(0.5)
    assert got.body == b"late"


async def test_a_picture_of_a_room_and_of_a_person_is_seen_on_the_other_server(stage: Stage) -> None:
    room = await stage.shared_room("11")
    content = picture((300, 300))
    uri = await upload(stage.host, content, "image/png", "picture.png")
    sent = await stage.host.send(
        room,
        "m.room.message",
        {"msgtype": "m.image", "body": "picture.png", "url": f"mxc://{uri.server}/{uri.media_id}"},
    )

    event = await stage.guest.wait_for_id(room, sent)

    got = await download(stage.guest, Uri.of(event["content"]["url"]))
    assert got.body == content


async def test_the_old_open_endpoints_are_frozen(stage: Stage) -> None:
    uri = await upload(stage.host, b"new", "text/plain")

    got = await stage.host.http.request("GET", f"/_matrix/media/v3/download/{uri.path}")

    assert (got.status, got.json()["errcode"]) == (404, "M_NOT_FOUND")
