# SPDX-License-Identifier: Apache-2.0
"""End-to-end encryption by the crypto that Element uses, in Node.js: see crypto.mjs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.interop.kit.authority import Authority
from tests.interop.kit.group import KINDS
from tests.interop.kit.homeserver import Homeserver, Place, log_shown_on_failure
from tests.interop.kit.ports import free_port

HERE = Path(__file__).parent
STORY_SECONDS = 180.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js with npm"),
]


@pytest.fixture(scope="session")
def modules() -> None:
    if not (HERE / "node_modules" / "matrix-js-sdk").exists():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        made = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Homeserver]:
    port = free_port()
    place = Place(
        f"localhost:{port}", tmp_path / "server", port, free_port(), Authority.create(tmp_path / "ca")
    )
    async with KINDS["minihs"](place) as running:
        with log_shown_on_failure(running):
            yield running


async def test_cross_signing_secret_storage_and_key_backup(server: Homeserver, modules: None) -> None:
    arguments = [server.base_url]
    for name in ("anna", "berta"):
        await (await server.register(name)).aclose()
        arguments += [name, f"password of {name}"]
    with trio.fail_after(STORY_SECONDS):
        done = await trio.run_process(
            ["node", str(HERE / "crypto.mjs"), *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    story = "\n".join(line for line in done.stdout.decode().splitlines() if line.startswith(("ok  ", "FAIL")))
    assert done.returncode == 0, story + done.stderr.decode()[-3000:]
