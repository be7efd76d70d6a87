# SPDX-License-Identifier: Apache-2.0
"""docs/clients.md says what there is: its tests exist, its endpoints are served, and no route is left out."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from minihs.web.route_modules import ROUTE_MODULES
from minihs.web.routes.client.versions import SPEC_VERSIONS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "clients.md").read_text()

VERDICTS = ("yes", "refused", "later", "not yet", "no")

LATER = re.compile(r"oauth|auth_metadata|appservice|application services|/app/v1/|delayed|rtc", re.I)
"""What may be left for later: OAuth, application services, calls and the delayed events that they use."""

NOT_YET: set[str] = set()
"""What must or should be there and is not: to stay empty."""


class Row(NamedTuple):
    method: str
    """Empty: a feature."""
    path: str
    since: str
    priority: str
    verdict: str
    tests: tuple[str, ...]

    @property
    def is_one_path(self) -> bool:
        """Some rows stand for many."""
        return bool(self.method) and not re.search(r" and |\.\.\.|, ", self.path)


def rows() -> list[Row]:
    found = []
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("| ") or cells[0] in ("method", "where"):
            continue
        tests = tuple(re.findall(r"`([^`]+::[^`]+)`", cells[-1]))
        if len(cells) == 6:
            method, path, since, priority, verdict, _ = cells
        elif len(cells) == 5 and cells[3] in VERDICTS:
            path, _, priority, verdict, _ = cells
            method = since = ""
        else:
            raise AssertionError(f"a row with {len(cells)} cells: {line}")
        found.append(Row(method, path.strip("`"), since, priority, verdict, tests))
    return found


ROWS = rows()


def shape(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{\w+\}", "{}", path)


@cache
def served() -> dict[tuple[str, str], set[str]]:
    """(method, shape of a path) → shapes of all paths of the route."""
    found = {}
    for module in ROUTE_MODULES:
        for route in module.routes.all:
            if route.api == "client":
                paths = {shape(path) for path in route.paths}
                found.update(dict.fromkeys(((route.method, path) for path in paths), paths))
    return found


def test_the_table_is_read() -> None:
    assert len(ROWS) > 200
    assert {row.priority for row in ROWS} == {"must", "should", "could"}
    assert {row.verdict for row in ROWS} <= set(VERDICTS)


@pytest.mark.parametrize("test", sorted({test for row in ROWS for test in row.tests}))
def test_a_test_that_is_named_exists(test: str) -> None:
    file, _, name = test.partition("::")
    text = (ROOT / "tests" / file).read_text()
    assert re.search(rf"^ *(async )?def {name}\(", text, re.M)


def test_what_must_or_should_be_there_has_a_test() -> None:
    lacking = [
        row.path
        for row in ROWS
        if row.priority in ("must", "should") and row.verdict in ("yes", "refused") and not row.tests
    ]
    assert lacking == []


def test_what_must_or_should_be_there_is() -> None:
    absent = {
        row for row in ROWS if row.priority in ("must", "should") and row.verdict not in ("yes", "refused")
    }
    assert {row.path for row in absent if row.verdict == "not yet"} == NOT_YET
    assert [row.path for row in absent if row.verdict == "no"] == []
    assert [row.path for row in absent if row.verdict == "later" and not LATER.search(row.path)] == []


def test_a_row_says_yes_exactly_if_the_path_is_served() -> None:
    for row in ROWS:
        if row.is_one_path:
            for method in row.method.split(","):
                is_served = (method, shape(row.path)) in served()
                assert is_served == (row.verdict in ("yes", "refused")), row


def test_every_route_for_clients_has_a_row() -> None:
    documented = {
        (method, shape(row.path)) for row in ROWS if row.is_one_path for method in row.method.split(",")
    }
    missing = [
        (method, path)
        for (method, path), paths in served().items()
        if not any((method, each) in documented for each in paths)
    ]
    assert missing == []


def test_no_version_is_claimed_of_which_something_is_missing() -> None:
    newest = max(int(version[3:]) for version in SPEC_VERSIONS if version.startswith("v1."))
    missing = [
        row.path
        for row in ROWS
        if row.since
        and int(row.since[2:]) <= newest
        and row.priority in ("must", "should")
        and row.verdict not in ("yes", "refused", "later")
        and row.path not in NOT_YET
    ]
    assert missing == []
