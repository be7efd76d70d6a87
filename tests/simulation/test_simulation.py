# SPDX-License-Identifier: Apache-2.0
"""Whole servers, random deeds of their users through the client API, cuts, slow and lossy lines, wrong
clocks, restarts and power cuts: in the end all servers see the same room, and nothing that was acknowledged
is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.drama import Script, play


@pytest.mark.parametrize("seed", range(4))
def test_three_servers_agree_and_lose_nothing(tmp_path: Path, seed: int) -> None:
    ending = play(tmp_path, Script(seed, deeds=60))
    assert ending.ledger.outcomes["done"] > 20
    assert len(ending.ledger.texts) > 10


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    one, two = (play(tmp_path / name, Script(1, deeds=30)) for name in ("one", "two"))
    assert one.ledger.log == two.ledger.log
    assert one.digest() == two.digest()
    assert "cut" in one.troubles


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_three_servers_agree_after_a_thousand_deeds(tmp_path: Path, seed: int) -> None:
    ending = play(tmp_path, Script(seed, deeds=1000))
    assert ending.ledger.outcomes["done"] > 300
    assert ending.troubles == {"cut", "lossy", "slow", "restart", "power-cut"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 40))
def test_five_servers_agree_after_a_thousand_deeds(tmp_path: Path, seed: int) -> None:
    ending = play(tmp_path, Script(seed, deeds=1000, servers=5))
    assert ending.ledger.outcomes["done"] > 300
