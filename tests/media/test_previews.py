# SPDX-License-Identifier: Apache-2.0
"""Previews of links: what a page says about itself, and never a way into the network behind us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from minihs.media import previews
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from tests.media.kit import picture, png_bomb
from tests.media.peers import V1, V3, Got, Stage, ask, download, stage

HTML = [("Content-Type", "text/html; charset=utf-8")]


class Web:
    def __init__(self, it: Stage) -> None:
        self.it = it
        self.internet = it.world.internet
        self.site = ScriptedPeer(self.internet, "site.test", clock=it.world.clock, port=443)

    def page(self, path: str, text: str, **more: Any) -> None:
        self.site.on("GET", path, Reply(body=text.encode(), headers=HTML, **more))

    async def preview(self, url: str = "https://site.test/page", prefix: str = V1) -> Got:
        return await ask(self.it.alice, "GET", f"{prefix}/preview_url?url={quote(url, safe='')}&ts=1")


@asynccontextmanager
async def web(folder: Path) -> AsyncIterator[Web]:
    async with stage(folder, url_previews=True) as it:
        yield Web(it)


async def test_a_page_is_described_as_it_describes_itself(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        image = picture((300, 200))
        it.page(
            "/page",
            """<title>Plain title</title><meta property="og:title" content="Fish &amp; chips">
            <meta name="description" content="About fish"><meta property="og:image" content="/fish.png?a=b">
            <meta property="og:image:width" content="300"><meta property="og:image:height" content="x">
            <meta property="og:evil" content="x"><meta property="og:site_name" content="Site">""",
        )
        it.site.on("GET", "/fish.png", Reply(body=image, headers=[("Content-Type", "text/plain")]))
        for prefix in (V1, V3):
            got = await it.preview(prefix=prefix)
            assert got.status == 200
            about = got.json
            uri = about.pop("og:image")
            assert about == {
                "og:title": "Fish & chips",
                "og:description": "About fish",
                "og:site_name": "Site",
                "og:image:type": "image/png",
                "og:image:width": 300,
                "matrix:image:size": len(image),
            }
        assert len(it.site.requests) == 2
        assert it.site.requests[1].uri == "/fish.png?a=b"
        assert all("authorization" not in request.headers for request in it.site.requests)
        server, _, media_id = uri.removeprefix("mxc://").partition("/")
        assert (await download(it.it.alice, server, media_id)).body == image


async def test_a_page_without_properties_has_its_title(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        it.page("/page", "<title>Only a title</title>")
        assert (await it.preview()).json == {"og:title": "Only a title"}
        it.page("/empty", "")
        assert (await it.preview("https://site.test/empty")).json == {}


async def test_a_link_to_a_picture_shows_it(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        image = picture((300, 200), "JPEG")
        it.site.on("GET", "/page", Reply(body=image, headers=[("Content-Type", "image/jpeg")]))
        about = (await it.preview()).json
        assert about["og:image"].startswith("mxc://one.test/")
        assert (about["og:image:type"], about["matrix:image:size"]) == ("image/jpeg", len(image))


@pytest.mark.parametrize(
    "kind", ["application/pdf", "video/mp4", "application/octet-stream", "text/plain", ""]
)
async def test_other_things_are_not_read(tmp_path: Path, kind: str) -> None:
    async with web(tmp_path) as it:
        reply = Reply(body=b"x" * 65536, headers=[("Content-Type", kind)], endless=True)
        it.site.on("GET", "/page", reply)
        got = await it.preview()
        assert (got.status, got.json) == (200, {})
        assert it.internet.link(it.it.server.host, it.site.host).bytes < 2_000_000


@pytest.mark.parametrize(
    "image", ["data:image/png;base64,AAAA", "ftp://x/y", "https://[", "/gone", "/text", ""]
)
async def test_a_picture_that_is_not_to_be_had_is_left_out(tmp_path: Path, image: str) -> None:
    async with web(tmp_path) as it:
        it.site.on("GET", "/text", Reply(body=b"no picture", headers=[("Content-Type", "image/png")]))
        it.page(
            "/page",
            f'<title>t</title><meta property="og:image" content="{image}">'
            '<meta property="og:image:width" content="3">',
        )
        assert (await it.preview()).json == {"og:title": "t"}
        assert it.it.files() == []


async def test_an_answer_is_kept_for_a_while_and_its_picture_longer(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        it.page("/page", '<title>t</title><meta property="og:image" content="/i.png">')
        it.site.on("GET", "/i.png", Reply(body=picture()))
        for _ in range(3):
            await it.preview("https://site.test/page#part")
        assert len(it.site.received("/page")) == 1
        await trio.sleep(2 * previews.KEPT_MS / 1000)
        assert len(it.it.files()) == 1
        await it.preview()
        assert len(it.site.received("/page")) == 2
        await trio.sleep(2 * previews.PICTURE_KEPT_MS / 1000)
        assert it.it.files() == []
        assert it.it.rows("SELECT * FROM url_previews") == []


async def test_many_who_ask_for_one_page_cost_one_request(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        it.page("/page", "<title>t</title>", delay=2.0)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(it.preview)
        assert len(it.site.requests) == 1


async def test_a_page_that_failed_is_not_asked_again_at_once(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        it.site.on("GET", "/page", Reply(500))
        for _ in range(3):
            assert (await it.preview()).refused(502, "M_UNKNOWN")
        assert len(it.site.requests) == 1


async def test_an_endless_page_is_read_to_the_cap(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        it.page("/page", "<title>t</title>" + "x" * 50_000, endless=True)
        assert (await it.preview()).json == {"og:title": "t"}
        assert it.internet.link(it.it.server.host, it.site.host).bytes < 3 * previews.MAX_PAGE


async def test_an_endless_picture_is_not_kept(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        reply = Reply(body=picture() + bytes(60_000), headers=[("Content-Type", "image/png")], endless=True)
        it.site.on("GET", "/page", reply)
        assert (await it.preview()).json == {}
        assert it.it.files() == []


async def test_a_slow_site_is_given_up_after_ten_seconds(tmp_path: Path) -> None:
    async with web(tmp_path) as it:

        async def slowly(_: Received) -> Reply:
            await trio.sleep(4)
            return Reply(302, headers=[("Location", "/page")])

        it.site.on("GET", "/page", slowly)
        it.page("/stuck", "x", delay=1e6)
        for url in ("https://site.test/page", "https://site.test/stuck"):
            started = trio.current_time()
            assert (await it.preview(url)).refused(502, "M_UNKNOWN")
            assert trio.current_time() - started <= previews.SECONDS + 1


async def test_a_picture_bomb_is_stored_and_never_unpacked(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        it.site.on("GET", "/page", Reply(body=png_bomb(), headers=[("Content-Type", "image/png")]))
        uri = (await it.preview()).json["og:image"]
        _, _, media_id = uri.removeprefix("mxc://").partition("/")
        path = f"{V1}/thumbnail/one.test/{media_id}?width=32&height=32"
        assert (await ask(it.it.alice, "GET", path)).refused(413, "M_TOO_LARGE")


@pytest.mark.parametrize(
    "url",
    [
        "https://inner.test/",
        "https://rebound.test/",
        "https://10.0.0.1/",
        "https://127.0.0.1:443/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[fe80::1%25eth0]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://0.0.0.0/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://site.test/to-inner",
        "https://site.test/to-address",
        "https://site.test@inner.test/",
        "https://inner.test\\@site.test/",
    ],
)
async def test_private_addresses_are_out_of_reach(tmp_path: Path, url: str) -> None:
    async with web(tmp_path) as it:
        inner = ScriptedPeer(it.internet, "inner.test", port=443)
        inner.host.address = "10.0.0.1"
        it.internet.dns.addresses["inner.test"] = ["10.0.0.1"]
        it.internet.dns.addresses["rebound.test"] = ["10.0.0.1", "127.0.0.1", "::ffff:10.0.0.1"]
        it.site.on("GET", "/to-inner", Reply(302, headers=[("Location", "https://inner.test/")]))
        it.site.on("GET", "/to-address", Reply(302, headers=[("Location", "//10.0.0.1/")]))
        got = await it.preview(url)
        assert got.status == 502
        assert inner.requests == []
        assert it.internet.link(it.it.server.host, inner.host).connections == 0


@pytest.mark.parametrize(
    "url", ["", "ftp://site.test/", "file:///etc/passwd", "javascript:alert(1)", "site.test", "mxc://a/b"]
)
async def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    async with web(tmp_path) as it:
        assert (await it.preview(url)).refused(400, "M_INVALID_PARAM")
        assert (await it.preview("https://site.test/" + "x" * previews.MAX_URL)).status == 400
        missing = await ask(it.it.alice, "GET", f"{V1}/preview_url")
        assert missing.refused(400, "M_MISSING_PARAM")


async def test_six_redirects_are_too_many(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        for number in range(8):
            it.site.on("GET", f"/r{number}", Reply(302, headers=[("Location", f"/r{number + 1}")]))
        it.page("/r8", "<title>end</title>")
        assert (await it.preview("https://site.test/r3")).json == {"og:title": "end"}
        assert (await it.preview("https://site.test/r2")).refused(502, "M_UNKNOWN")
