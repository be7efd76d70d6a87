# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from minihs.store.reader import Reader
from tests.sync.world import World, new_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Tests that wait take `autojump_clock` as well: pytest-trio finds a clock only among a test's own
    arguments."""
    async with new_world(tmp_path) as made:
        yield made


@pytest.fixture
def scans(world: World, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The reads that are given to a thread, as they are."""
    found: list[object] = []
    scan = world.db.scan

    async def noted[T](function: Callable[[Reader], T]) -> T:
        found.append(function)
        return await scan(function)

    monkeypatch.setattr(world.db, "scan", noted)
    return found
