# SPDX-License-Identifier: Apache-2.0
"""For each point of the authorisation rules, events that it decides. Points are named as in
auth_rule_numbers.tsv.

A sentence that begins with "+" is of an event that the point allows, one with "-" of an event that it
forbids.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.matrix.auth_world import Judgement, World

type Case = Callable[[World], Judgement]

CASES: dict[str, dict[str, Case]] = {}
"""By point and sentence."""


def case_of(point: str, sentence: str, build: Case) -> None:
    cases = CASES.setdefault(point, {})
    assert sentence not in cases, sentence
    cases[sentence] = build


def case(point: str, sentence: str) -> Callable[[Case], Case]:
    def add(build: Case) -> Case:
        case_of(point, sentence, build)
        return build

    return add
