# SPDX-License-Identifier: Apache-2.0
"""The table of scripts/bench: what counts as a budget that was met."""

from __future__ import annotations

import dataclasses

import pytest

from scripts.bench_lib.__main__ import SCENARIOS
from scripts.bench_lib.subject import QUICK, Sizes
from scripts.bench_lib.table import ROWS, table


def line(figures: dict[str, dict[str, float]]) -> str:
    """The only line of figures in the table."""
    lines = table(figures, dataclasses.asdict(Sizes())).splitlines()
    assert len(lines) == 3
    return lines[2]


@pytest.mark.parametrize(
    ("synapse", "minihs", "verdict"),
    [
        (24.7, 1.9, "met"),  # as it was when the budget was set
        (100.0, 8.0, "met"),  # a machine four times slower: by the ratio
        (24.7, 2.1, "MISSED"),
        (100.0, 9.0, "MISSED"),
    ],
)
def test_a_budget_of_cpu_time_is_met_in_itself_or_as_a_ratio(
    synapse: float, minihs: float, verdict: str
) -> None:
    assert verdict in line({"send_cpu_ms": {"synapse": synapse, "minihs": minihs}})


def test_more_can_be_better() -> None:
    assert "met" in line({"sends_per_s_1": {"synapse": 10, "minihs": 81}})
    assert "MISSED" in line({"sends_per_s_1": {"synapse": 10, "minihs": 79}})


def test_one_server_alone_is_shown_without_a_ratio() -> None:
    shown = line({"wake_ms": {"minihs": 4.5}})

    assert "4.50 ms" in shown
    assert "MISSED" not in shown
    assert "met" not in shown


def test_every_figure_has_one_line() -> None:
    figures = {row.key: {"synapse": 1.0, "minihs": 1.0} for row in ROWS}

    assert len(table(figures, dataclasses.asdict(QUICK)).splitlines()) == len(ROWS) + 2
    assert len(figures) == len(ROWS)
    assert len(SCENARIOS) == 10
