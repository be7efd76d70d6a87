# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sync.world import World, new_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Tests that wait take `autojump_clock` as well: pytest-trio finds a clock only among a test's own
    arguments."""
    async with new_world(tmp_path) as made:
        yield made
