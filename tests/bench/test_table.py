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


def verdict(figures: dict[str, dict[str, float]]) -> str:
    return line(figures).split("|")[-2].strip()


@pytest.mark.parametrize(
    ("synapse", "minihs", "expected"),
    [
        (24.7, 1.9, "met"),  # as it was when the budget was set
        (10.0, 1.9, "met"),  # in itself, whatever Synapse took
        (100.0, 8.0, "met by ratio only"),  # a machine four times slower
        (24.7, 2.1, "MISSED"),
        (100.0, 9.0, "MISSED"),
    ],
)
def test_a_budget_of_cpu_time_is_met_in_itself_and_the_ratio_is_said_to_be_one(
    synapse: float, minihs: float, expected: str
) -> None:
    assert verdict({"send_cpu_ms": {"synapse": synapse, "minihs": minihs}}) == expected


def test_a_budget_that_is_a_ratio_is_met_as_one() -> None:
    assert verdict({"sends_per_s_1": {"synapse": 10, "minihs": 81}}) == "met"
    assert verdict({"sends_per_s_1": {"synapse": 10, "minihs": 79}}) == "MISSED"


def test_without_the_other_server_a_budget_in_figures_still_counts() -> None:
    assert verdict({"send_cpu_ms": {"minihs": 1.9}}) == "met"
    assert verdict({"send_cpu_ms": {"minihs": 2.1}}) == "MISSED"


def test_more_can_be_better() -> None:
    assert verdict({"backfill_per_s": {"minihs": 12_001}}) == "met"
    assert verdict({"backfill_per_s": {"minihs": 11_999}}) == "MISSED"


def test_one_server_alone_is_shown_without_a_ratio() -> None:
    shown = line({"wake_ms": {"minihs": 4.5}})

    assert "4.50 ms" in shown
    assert "MISSED" not in shown
    assert "met" not in shown


def test_every_figure_has_one_line() -> None:
    figures = {row.key: {"synapse": 1.0, "minihs": 1.0} for row in ROWS}

    assert len(table(figures, dataclasses.asdict(QUICK)).splitlines()) == len(ROWS) + 2
    assert len(figures) == len(ROWS)
    assert len(SCENARIOS) == 15
