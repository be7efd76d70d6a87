# SPDX-License-Identifier: Apache-2.0
"""Whole servers, random deeds of their users through the client API, cuts, slow and lossy lines, wrong
clocks, restarts and power cuts: in the end all servers see the same room, nothing that was acknowledged is
lost, and each server accepted, soft-failed, rejected and redacted what a plain second writing of the rules
says (tests/simulation/book.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.drama import Ending, Script, play


@pytest.mark.parametrize("seed", [0, 1, 3])  # room versions 12, 11 and 10
def test_three_servers_agree_and_lose_nothing(tmp_path: Path, seed: int) -> None:
    ending = play(tmp_path, Script(seed, deeds=60))
    assert ending.ledger.outcomes["done"] > 20
    assert len(ending.ledger.texts) > 5


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    one, two = (play(tmp_path / name, Script(1, deeds=30)) for name in ("one", "two"))
    assert one.ledger.log == two.ledger.log
    assert one.digest() == two.digest()
    assert "cut" in one.troubles


LONG_PROFILE = range(20, 70)

MOVES = {
    "leave to join",
    "leave to join, vouched for",
    "join to join",
    "join to leave",
    "join to leave by another",
    "join to ban by another",
    "leave to ban by another",
    "ban to leave by another",
    "leave to invite by another",
    "leave to invite by another, by mail",
    "invite to join",
    "invite to leave",
    "invite to leave by another",
    "invite to ban by another",
    "leave to knock",
    "knock to invite by another",
    "knock to leave",
    "knock to leave by another",
    "knock to join, vouched for",
}
"""What people did with their membership and that of others, of which no kind may be missing."""


@pytest.fixture(scope="module")
def played() -> Iterator[dict[int, Ending]]:
    """The endings of the long profile. All of it together must have had everything in it."""
    endings: dict[int, Ending] = {}
    yield endings
    if len(endings) == len(LONG_PROFILE):
        moves = {move for ending in endings.values() for move in ending.moves}
        assert moves >= MOVES
        assert sum(ending.rejected for ending in endings.values()) > 100
        assert sum(ending.soft_failed for ending in endings.values()) > 100
        assert sum(ending.redacted for ending in endings.values()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", LONG_PROFILE)
def test_five_servers_agree_and_lose_nothing(tmp_path: Path, seed: int, played: dict[int, Ending]) -> None:
    ending = play(tmp_path, Script(seed, deeds=200, servers=5))
    assert ending.ledger.outcomes["done"] > 60
    assert len(ending.troubles) > 2
    assert ending.judged > 300
    played[seed] = ending


@pytest.mark.slow
@pytest.mark.parametrize("servers", [3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_they_agree_after_a_thousand_deeds(tmp_path: Path, seed: int, servers: int) -> None:
    ending = play(tmp_path, Script(seed, deeds=1000, servers=servers))
    assert ending.ledger.outcomes["done"] > 300
    assert ending.troubles == {"cut", "lossy", "slow", "clock", "restart", "power-cut"}
