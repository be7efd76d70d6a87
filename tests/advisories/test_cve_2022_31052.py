# SPDX-License-Identifier: Apache-2.0
"""CVE-2022-31052: a page nested deeply enough, of which somebody wanted a preview, ended the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.testing.hostile import Reply, ScriptedPeer
from tests.advisories.kit import cpu_budget, seg, siege

PAGES = {
    "nested": "<div>" * 100_000 + "<title>deep</title>" + "</div>" * 100_000,
    "never closed": "<a href='" + "<b " * 200_000,
    "tags without end": "<" * 500_000,
    "one attribute": "<meta property=" + "x" * 900_000,
    "comments": "<!--" * 200_000,
    "entities": "<title>" + "&amp" * 200_000 + "</title>",
    "properties": "<meta property='og:title' content='x'>" * 20_000,
    "scripts in scripts": "<script>" * 100_000,
}


@pytest.mark.parametrize("name", PAGES)
async def test_no_page_ends_anything(tmp_path: Path, name: str) -> None:
    async with siege(tmp_path, media={"url_previews": True}) as at:
        site = ScriptedPeer(at.world.internet, "site.test", clock=at.world.clock, port=443)
        headers = [("Content-Type", "text/html; charset=utf-8")]
        site.on("GET", "/", Reply(body=PAGES[name].encode(), headers=headers))
        path = f"/_matrix/client/v1/media/preview_url?url={seg('https://site.test/')}"
        with cpu_budget(10):
            status, answer = await at.alice.ask("GET", path)
        assert status == 200, answer
        assert len(str(answer)) < 10_000
        await at.unharmed()
