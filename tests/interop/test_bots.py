# SPDX-License-Identifier: Apache-2.0
"""matrix-nio, which most Python bots are made with, on one server. It refuses answers of the wrong shape."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.interop.kit.environment import python_with
from tests.interop.kit.group import Group
from tests.interop.kit.homeserver import REPOSITORY
from tests.interop.kit.story import run_story

HERE = Path(__file__).parent


@pytest.fixture
async def people(pair: Group) -> list[str]:
    """Base URL, user name and password of two on the first server."""
    await pair.start_again()
    server, found = pair.servers[0], []
    for name in ("anna", "berta"):
        localpart = f"{name}-{uuid.uuid4().hex[:8]}"
        await (await server.register(localpart)).aclose()
        found += [server.base_url, f"@{localpart}:{server.server_name}", f"password of {localpart}"]
    return found


@pytest.mark.parametrize(
    ("program", "last"),
    [
        ("nio_tour.py", "logging out"),
        ("nio_story.py", "an encrypted file comes to the other side as it was"),
    ],
)
async def test_matrix_nio_gets_what_it_asks_for(
    people: list[str], tmp_path: Path, program: str, last: str
) -> None:
    python = python_with(HERE / "nio-requirements.txt", REPOSITORY / ".nio-venv")
    steps = await run_story([str(python), str(HERE / program), str(tmp_path / "nio"), *people])
    assert steps[-1] == f"ok   {last}"
