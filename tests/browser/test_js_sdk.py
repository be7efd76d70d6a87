# SPDX-License-Identifier: Apache-2.0
"""matrix-js-sdk in headless Chromium against a running homeserver: what every browser client stands on.

The page (page.html, page.js) and its driver (drive.mjs) are the tests' own. Needs Node.js and Chromium;
without them the tests are skipped and say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.browser.modules import install_modules, needs_node
from tests.interop.kit.authority import Authority
from tests.interop.kit.client import Client
from tests.interop.kit.group import KINDS
from tests.interop.kit.homeserver import REPOSITORY, Homeserver, Place, log_shown_on_failure
from tests.interop.kit.ports import free_port

HERE = Path(__file__).parent
# synapse is the control: what fails there is a fault of the page.
SERVERS = os.environ.get("MINIHS_BROWSER_SERVERS", "minihs").split(",")
STORY_SECONDS = 150.0


def chromium() -> str | None:
    given = os.environ.get("CHROMIUM")
    return (
        given or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    )


pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium (Debian: apt-get install chromium)"),
    needs_node,
]


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The page and matrix-js-sdk, bundled by vite; made again only when a source changed."""
    names = ["package.json", "package-lock.json", "page.html", "vite.config.js"]
    names += ["page.js", "view.js", "attachments.js"]
    sources = [HERE / name for name in names]
    wanted = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp = HERE / "dist" / "made-from"
    if not stamp.exists() or stamp.read_text() != wanted:
        install_modules()
        made = subprocess.run(["npm", "run", "build"], cwd=HERE, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        stamp.write_text(wanted)
    return HERE / "dist"


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Homeserver]:
    port = free_port()
    authority = Authority.create(tmp_path / "ca")
    place = Place(f"localhost:{port}", tmp_path / "server", port, free_port(), authority)
    async with KINDS[request.param](place) as running:
        with log_shown_on_failure(running):
            yield running


async def drive(story: str, url: str, people: list[str], out: Path) -> None:
    """Runs a story of drive.mjs; the passwords are those of the test's registration."""
    arguments = [
        argument
        for user in people
        for argument in (user, f"password of {user.removeprefix('@').partition(':')[0]}")
    ]
    environment = {**os.environ, "CHROMIUM": chromium() or "", "OUT": str(out)}
    with trio.fail_after(STORY_SECONDS):
        done = await trio.run_process(
            ["node", str(HERE / "drive.mjs"), story, url, *arguments],
            env=environment,
            capture_stdout=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode()


def users(server: Homeserver) -> list[str]:
    return [f"@anna:{server.server_name}", f"@berta:{server.server_name}"]


@pytest.fixture
async def berta(server: Homeserver) -> AsyncIterator[Client]:
    """Anna and Berta have accounts; this is Berta on the API."""
    await (await server.register("anna")).aclose()
    client = await server.register("berta")
    yield client
    await client.aclose()


async def test_one_signs_in_creates_a_room_talks_and_reloads(
    server: Homeserver, bundle: Path, berta: Client, tmp_path: Path
) -> None:

    async def answer() -> None:
        room = await berta.wait_until(
            lambda: next(iter(berta.invites), None), "an invite", seconds=STORY_SECONDS
        )
        await berta.join(room)
        await berta.wait_for(
            room,
            lambda event: event["content"].get("body") == "hello from the browser",
            "the browser's message",
        )
        await berta.say(room, "hello from the API")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await drive("plain", server.base_url, users(server), tmp_path)


async def test_two_people_and_all_that_a_client_does_with_a_room_encrypted_or_not(
    server: Homeserver, bundle: Path, berta: Client, tmp_path: Path
) -> None:
    """Cross-signing and recovery, text, pictures, replies, reactions, edits, redactions, receipts; all of it
    again after a reload, and on a second device.
    """
    await drive("everything", server.base_url, users(server), tmp_path)


async def test_an_invitation_leads_to_a_page_that_makes_an_account(
    server: Homeserver, bundle: Path, tmp_path: Path
) -> None:
    if server.kind != "minihs":
        pytest.skip("minihs user invite")
    command = [sys.executable, "-m", "minihs", "user", "invite", "--config"]
    config = str(server.place.folder / "minihs.toml")
    made = await trio.run_process(
        [*command, config], cwd=REPOSITORY, capture_stdout=True, capture_stderr=True
    )
    link = made.stdout.decode().strip().replace(f"https://{server.server_name}", server.base_url)
    await drive("invitation", link, ["anna", "berta"], tmp_path)
    http = server.http()
    body = {"type": "m.login.password", "user": "anna", "password": "password of anna"}
    login = await http.request("POST", "/_matrix/client/v3/login", body=json.dumps(body).encode())
    await http.aclose()
    assert login.status == 200
