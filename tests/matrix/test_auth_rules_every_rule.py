# SPDX-License-Identifier: Apache-2.0
"""Every point of the authorisation rules of every room version, with the number that the text gives it.

auth_rule_numbers.tsv lists the points (a transcription of the texts, not of the code), the package
auth_rule_cases has the events. A point without an event fails here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minihs.matrix.auth_rules import AuthError
from minihs.matrix.room_versions import ROOM_VERSIONS
from tests.matrix.auth_rule_cases import CASES
from tests.matrix.auth_rule_cases.registry import Case
from tests.matrix.auth_world import World


def _table() -> Iterator[tuple[str, str, str, str]]:
    """Point, effect, version and number of all that exist."""
    lines = Path(__file__).with_name("auth_rule_numbers.tsv").read_text().splitlines()
    versions = [column.removeprefix("v") for column in lines[0].split("\t")[2:]]
    for line in lines[1:]:
        point, effect, *numbers = line.split("\t")
        for version, number in zip(versions, numbers, strict=True):
            if number != "-":
                yield point, effect, version, number


POINTS = list(_table())
"""`effect` is what the point does: allow, reject, or both."""


def _decided() -> Iterator[object]:
    for point, _, version, number in POINTS:
        for sentence, build in CASES.get(point, {}).items():
            yield pytest.param(version, number, sentence, build, id=f"v{version} {number} {point} {sentence}")


def test_the_table_has_every_version() -> None:
    assert {version for _, _, version, _ in POINTS} == set(ROOM_VERSIONS)


def test_no_number_stands_twice_in_a_version() -> None:
    assert len({(version, number) for _, _, version, number in POINTS}) == len(POINTS)


@pytest.mark.parametrize(("point", "effect"), sorted({(point, effect) for point, effect, _, _ in POINTS}))
def test_there_is_an_event_for_each_thing_a_point_does(point: str, effect: str) -> None:
    signs = {sentence[0] for sentence in CASES.get(point, {})}
    assert signs == {"allow": {"+"}, "reject": {"-"}, "both": {"+", "-"}}[effect]


def test_no_event_is_for_a_point_that_does_not_exist() -> None:
    assert set(CASES) == {point for point, _, _, _ in POINTS}


@pytest.mark.parametrize(("version", "number", "sentence", "build"), list(_decided()))
def test_the_right_point_decides(version: str, number: str, sentence: str, build: Case) -> None:
    judgement = build(World(version))
    if sentence.startswith("+"):
        assert judgement() == number
    else:
        with pytest.raises(AuthError) as caught:
            judgement()
        assert caught.value.rule == number
        assert caught.value.args[0].startswith(f"rule {number}: ")
