# SPDX-License-Identifier: Apache-2.0
"""The arena of each module, and how many cases there were in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.fuzz.arena import Arena

HERE = Path(__file__).parent
LONG_RUN = 20_000
"""Cases that a run of the long profile has at least."""
TALLY = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Counter()


@pytest.fixture(scope="module")
def arena_of_module(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Arena]:
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        yield arena
    request.config.stash[TALLY].update(arena.tally)


@pytest.fixture
def arena(arena_of_module: Arena, request: pytest.FixtureRequest) -> Arena:
    arena_of_module.name = request.node.nodeid.rpartition("/")[2]
    return arena_of_module


@pytest.fixture(scope="session", autouse=True)
def enough_cases(request: pytest.FixtureRequest) -> Iterator[None]:
    """In a long run of all of the directory."""
    yield
    if settings.get_current_profile_name() == "long" and not hasattr(request.config, "workerinput"):
        run = {item.path.name for item in request.session.items if item.path.parent == HERE}
        if run == {path.name for path in HERE.glob("test_*.py")}:
            assert request.config.stash[TALLY].total() >= LONG_RUN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[TALLY]
    if tally:
        terminalreporter.section("cases")
        for name, cases in sorted(tally.items()):
            terminalreporter.line(f"{cases:7,} {name}")
        terminalreporter.line(f"{tally.total():7,} in all")
