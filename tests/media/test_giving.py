# SPDX-License-Identifier: Apache-2.0
"""Files that we give to other servers."""

from __future__ import annotations

from pathlib import Path

from minihs.media.multipart import boundary_of
from tests.media.kit import moving_picture, open_media, opened, picture
from tests.media.peers import (
    DOWNLOAD,
    V1,
    ask,
    multipart,
    stage,
    upload,
)


async def test_a_file_is_given_to_servers_that_sign(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        _, media_id = await upload(it.alice, b"our file", "image/png", "a.png")
        status, _ = await it.peer.request("GET", "one.test", f"{DOWNLOAD}{media_id}", headers=[])
        assert status == 401
        status, _ = await it.peer.request("GET", "one.test", f"{DOWNLOAD}{media_id}")
        assert status == 200
        for wrong, refusal in (
            ("nothing", (404, "M_NOT_FOUND")),
            ("..%2Fx", (400, "M_INVALID_PARAM")),
            (f"{media_id}/x", (404, "M_UNRECOGNIZED")),
        ):
            status, answer = await it.peer.request("GET", "one.test", f"{DOWNLOAD}{wrong}")
            assert (status, answer["errcode"]) == refusal


async def test_a_file_is_given_in_two_parts_json_first(tmp_path: Path) -> None:
    async with open_media(tmp_path) as media:
        media_id = await media.upload(b"--content\r\n", "text/html", "a b.html")
        answer = await media.ask(
            "GET",
            f"{DOWNLOAD}{media_id}",
            who=None,
            headers={"Authorization": 'X-Matrix origin="other.example",sig="good"'},
        )
        boundary = boundary_of(answer.headers["Content-Type"])
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(len(answer.body))
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert (
            answer.body
            == (
                f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
                f"--{boundary}\r\nContent-Type: text/html\r\n"
                'Content-Disposition: attachment; filename="a b.html"\r\n\r\n'
                f"--content\r\n\r\n--{boundary}--\r\n"
            ).encode()
        )


async def test_a_thumbnail_is_given_in_two_parts_like_a_file(tmp_path: Path) -> None:
    async with open_media(tmp_path) as media:
        media_id = await media.upload(picture((500, 400)), "image/png", "a.png")
        answer = await media.ask(
            "GET",
            f"/_matrix/federation/v1/media/thumbnail/{media_id}?width=32&height=32&method=crop",
            who=None,
            headers={"Authorization": 'X-Matrix origin="other.example",sig="good"'},
        )
        boundary = boundary_of(answer.headers["Content-Type"])
        _, first, second, _ = answer.body.split(f"--{boundary}".encode())
        assert first == b"\r\nContent-Type: application/json\r\n\r\n{}\r\n"
        head, _, content = second.partition(b"\r\n\r\n")
        assert b"Content-Type: image/jpeg" in head
        assert opened(content.removesuffix(b"\r\n")).size == (32, 32)


async def test_other_servers_files_are_not_given_on(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, multipart(b"content"))
        await it.get("abc")
        status, answer = await it.peer.request("GET", "one.test", f"{DOWNLOAD}abc")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_thumbnails_are_given_to_servers_that_sign(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        _, media_id = await upload(it.alice, picture((500, 400)), "image/png")
        base = f"/_matrix/federation/v1/media/thumbnail/{media_id}"
        status, _ = await it.peer.request("GET", "one.test", f"{base}?width=32&height=32")
        assert status == 200
        status, answer = await it.peer.request("GET", "one.test", base)
        assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")
        _, text_id = await upload(it.alice, b"no picture", "image/png")
        status, answer = await it.peer.request(
            "GET", "one.test", f"/_matrix/federation/v1/media/thumbnail/{text_id}?width=32&height=32"
        )
        assert (status, answer["errcode"]) == (400, "M_UNKNOWN")


async def test_an_animation_arrives_whole_and_its_thumbnail_stands_still(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, multipart(moving_picture(), Content_Type="image/gif"))
        assert opened((await it.get("abc")).body).n_frames == 3  # type: ignore[attr-defined]  # of moving pictures
        got = await ask(it.alice, "GET", f"{V1}/thumbnail/peer.test/abc?width=320&height=240&animated=false")
        assert got.headers["content-type"] == "image/jpeg"
