# SPDX-License-Identifier: Apache-2.0
"""Sliding sync by matrix-js-sdk's own classes for it, in Node.js: see sliding.mjs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser.modules import install_modules, needs_node
from tests.browser.test_js_sdk import SERVERS
from tests.interop.kit.authority import Authority
from tests.interop.kit.group import KINDS
from tests.interop.kit.homeserver import Homeserver, Place, log_shown_on_failure
from tests.interop.kit.ports import free_port
from tests.interop.kit.story import run_story

HERE = Path(__file__).parent

pytestmark = [pytest.mark.browser, needs_node]


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Homeserver]:
    port = free_port()
    place = Place(
        f"localhost:{port}", tmp_path / "server", port, free_port(), Authority.create(tmp_path / "ca")
    )
    async with KINDS[request.param](place) as running:
        with log_shown_on_failure(running):
            yield running


async def test_a_client_lives_by_sliding_sync_alone(server: Homeserver) -> None:
    install_modules()
    arguments = []
    for name in ("anna", "berta"):
        await (await server.register(name)).aclose()
        arguments += [server.base_url, name, f"password of {name}"]
    steps = await run_story(["node", str(HERE / "sliding.mjs"), *arguments])
    assert "ok   nothing went wrong meanwhile" in steps
