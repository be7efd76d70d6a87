# SPDX-License-Identifier: Apache-2.0
"""Encrypted conversations between two servers, by the libraries that real clients are made of.

Device lists, one-time keys and to-device messages all have to pass between the servers, or nothing is read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.modules import HERE as BROWSER
from tests.browser.modules import install_modules, needs_node
from tests.interop.conftest import Stage
from tests.interop.kit.environment import python_with
from tests.interop.kit.homeserver import REPOSITORY
from tests.interop.kit.story import run_story

HERE = Path(__file__).parent


def people(stage: Stage) -> list[str]:
    """Base URL, user name and password of both."""
    found = []
    for server, client in ((stage.home, stage.host), (stage.away, stage.guest)):
        localpart = client.user_id[1:].partition(":")[0]
        found += [server.base_url, localpart, f"password of {localpart}"]
    return found


async def test_matrix_nio_reads_what_is_said_elsewhere_and_a_new_device_is_given_the_keys(
    stage: Stage, tmp_path: Path
) -> None:
    python = python_with(HERE / "nio-requirements.txt", REPOSITORY / ".nio-venv")
    steps = await run_story([str(python), str(HERE / "nio_story.py"), str(tmp_path / "nio"), *people(stage)])
    assert "ok   the old device shares the key of the old message" in steps


@needs_node
@pytest.mark.browser
async def test_the_rust_crypto_of_matrix_js_sdk_talks_cross_signs_and_restores_its_backup(
    stage: Stage,
) -> None:
    install_modules()
    steps = await run_story(["node", str(BROWSER / "crypto.mjs"), *people(stage)])
    assert "ok   the second device reads what was said before" in steps
