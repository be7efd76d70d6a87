# SPDX-License-Identifier: Apache-2.0
"""CVE-2022-41952: a preview of something that never ends was downloaded for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.media import previews
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from tests.advisories.kit import seg, siege

HTML = [("Content-Type", "text/html")]


async def trickle(_: Received) -> Reply:
    await trio.sleep(5)
    return Reply(302, headers=[("Location", "/")])


STREAMS: dict[str, Any] = {
    "a page without end": Reply(body=b"<title>x</title>" + b"<p>" * 20_000, headers=HTML, endless=True),
    "radio": Reply(body=bytes(65536), headers=[("Content-Type", "audio/mpeg")], endless=True),
    "anything": Reply(
        body=bytes(65536), headers=[("Content-Type", "application/octet-stream")], endless=True
    ),
    "a picture without end": Reply(
        body=b"\x89PNG\r\n\x1a\n" + bytes(65536), headers=[("Content-Type", "image/png")], endless=True
    ),
    "an answer that never comes": Reply(delay=1e6),
    "round and round": trickle,
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_preview_comes_to_an_end(tmp_path: Path, name: str) -> None:
    async with siege(tmp_path, media={"url_previews": True}) as at:
        site = ScriptedPeer(at.world.internet, "site.test", clock=at.world.clock, port=443)
        site.on("GET", "/", STREAMS[name])
        link = at.world.internet.link(at.world["one.test"].host, site.host)
        started, before = trio.current_time(), link.bytes
        path = f"/_matrix/client/v1/media/preview_url?url={seg('https://site.test/')}"
        status, _ = await at.alice.ask("GET", path)
        assert status in (200, 502)
        assert trio.current_time() - started <= previews.SECONDS + 1
        most = 15 * 1024 * 1024 if "picture" in name else 3 * previews.MAX_PAGE
        if name in ("radio", "anything"):
            most = 512 * 1024  # not read at all, but for what was on its way
        assert link.bytes - before < most
        await at.unharmed()
