# SPDX-License-Identifier: Apache-2.0
"""An internet under a clock that jumps, and a server on it that calls others."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minihs.testing.clock import run_virtual
from minihs.testing.hostile import ScriptedPeer
from minihs.testing.internet import Internet
from tests.federation.kit import Caller, caller
from tests.federation.sending import World, world_in


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name == "test_resolver.py":
            continue  # real sockets: the clock must not jump while they are waited for
        test = getattr(item, "function", None)
        if inspect.iscoroutinefunction(test) and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.trio(run=run_virtual))


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet.open(seed=1) as internet:
        yield internet


@pytest.fixture
async def us(internet: Internet, tmp_path: Path) -> AsyncIterator[Caller]:
    async with caller(internet, tmp_path) as us:
        yield us


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


@pytest.fixture
async def peer(us: Caller) -> ScriptedPeer:
    return ScriptedPeer(us.internet, "peer.test", clock=us.clock)
