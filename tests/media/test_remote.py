# SPDX-License-Identifier: Apache-2.0
"""Files of other servers: fetched once, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.media import remote
from minihs.testing.hostile import Received, Reply
from minihs.testing.servers import cluster
from tests.media.kit import opened, picture
from tests.media.peers import (
    DOWNLOAD,
    LEGACY,
    UNKNOWN,
    V1,
    V3,
    ask,
    download,
    multipart,
    stage,
    upload,
)


async def test_a_file_travels_from_one_server_to_another(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        content = bytes(range(256)) * 3000
        server, media_id = await upload(alice, content, "image/png", "%C3%BC.png")
        for _ in range(2):
            got = await download(bob, server, media_id)
            assert (got.status, got.body) == (200, content)
            assert got.headers["content-type"] == "image/png"
            assert got.headers["content-disposition"] == "inline; filename*=utf-8''%C3%BC.png"
        await world.stop("one.test")
        assert (await download(bob, server, media_id)).body == content


async def test_a_thumbnail_of_another_servers_picture_is_made_here(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        server, media_id = await upload(alice, picture((500, 400)), "image/png")
        got = await ask(bob, "GET", f"{V1}/thumbnail/{server}/{media_id}?width=90&height=90&method=crop")
        assert (got.status, opened(got.body).size) == (200, (96, 96))
        assert got.headers["content-disposition"] == 'inline; filename="thumbnail.jpg"'


async def test_a_file_that_is_still_to_come_is_waited_for_across_servers(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        created = await alice.post("/_matrix/media/v1/create")
        server, _, media_id = created["content_uri"].removeprefix("mxc://").partition("/")
        got = await download(bob, server, media_id, "?timeout_ms=1000")
        assert got.refused(504, "M_NOT_YET_UPLOADED")
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                await trio.sleep(5)
                await ask(alice, "PUT", f"{V3}/upload/{server}/{media_id}", b"late")

            nursery.start_soon(fill)
            assert (await download(bob, server, media_id)).body == b"late"


async def test_what_the_other_server_says_about_the_file_is_kept(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on(
            "GET",
            DOWNLOAD,
            multipart(
                b"content", Content_Type="text/html", Content_Disposition="inline; filename*=utf-8''%e2%82%ac"
            ),
        )
        got = await it.get("abc")
        assert (got.status, got.body) == (200, b"content")
        assert got.headers["content-type"] == "text/html; charset=utf-8"
        assert got.headers["content-disposition"] == "attachment; filename*=utf-8''%E2%82%AC"
        assert "timeout_ms=20000" in it.asked()[0].uri
        assert it.asked()[0].headers["authorization"].startswith("X-Matrix")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": "text/html\tx"},
        {"Content_Type": "a" * 300 + "/b"},
        {"Content_Type": "\xff/\xff"},
        {"Content_Type": "nonsense"},
    ],
)
async def test_types_that_are_none_become_bytes(tmp_path: Path, headers: dict[str, str]) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, multipart(b"x", **headers))
        got = await it.get("abc")
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["content-disposition"] == "attachment"


async def test_a_server_without_the_signed_endpoint_is_asked_the_old_way(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, UNKNOWN)
        it.peer.on(
            "GET",
            LEGACY,
            Reply(
                body=b"old",
                headers=[("Content-Type", "image/gif"), ("Content-Disposition", 'inline; filename="a.gif"')],
            ),
        )
        got = await it.get("abc")
        assert (got.status, got.body) == (200, b"old")
        assert got.headers["content-type"] == "image/gif"
        (request,) = it.asked(LEGACY)
        assert request.path == f"{LEGACY}peer.test/abc"
        assert "allow_remote=false" in request.uri
        assert "authorization" not in request.headers


async def test_a_file_that_the_other_server_does_not_have_is_not_found_and_not_asked_for_again(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, Reply(404, {"errcode": "M_NOT_FOUND", "error": "No."}))
        for _ in range(3):
            assert (await it.get("abc")).refused(404, "M_NOT_FOUND")
        assert len(it.asked()) == 1
        assert it.asked(LEGACY) == []
        await trio.sleep(remote.REMEMBER_MISSING + 1)
        it.peer.on("GET", DOWNLOAD, multipart(b"now"))
        assert (await it.get("abc")).body == b"now"


async def test_a_server_that_is_down_is_not_asked_again_and_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.host.down()
        for _ in range(5):
            assert (await it.get("abc")).refused(502, "M_UNKNOWN")
        refused = it.world.internet.link(it.server.host, it.peer.host).refused
        assert refused <= 2
        it.peer.host.up()
        it.peer.on("GET", DOWNLOAD, multipart(b"back"))
        await trio.sleep(remote.REMEMBER_FAILED + 1)
        assert (await it.get("abc")).body == b"back"


async def test_fifty_who_ask_at_once_cost_one_fetch(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:

        async def slowly(_: Received) -> Reply:
            await trio.sleep(2)
            return multipart(b"shared")

        it.peer.on("GET", DOWNLOAD, slowly)
        bodies: list[bytes] = []

        async def one() -> None:
            bodies.append((await it.get("abc")).body)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
        assert bodies == [b"shared"] * 50
        assert len(it.asked()) == 1


async def test_a_fetch_goes_on_when_the_client_hangs_up(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:

        async def slowly(_: Received) -> Reply:
            await trio.sleep(5)
            return multipart(b"finished")

        it.peer.on("GET", DOWNLOAD, slowly)
        with trio.move_on_after(1):
            await it.get("abc")
        await trio.sleep(10)
        assert it.rows("SELECT size FROM remote_media") == [(8,)]


async def test_of_one_server_a_few_files_come_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        now, most = 0, 0

        async def count(_: Received) -> Reply:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await trio.sleep(1)
            now -= 1
            return multipart(b"x")

        it.peer.on("GET", DOWNLOAD, count)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(it.get, f"m{number}")
        assert most == remote.MAX_FETCHES_PER_SERVER
