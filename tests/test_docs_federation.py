# SPDX-License-Identifier: Apache-2.0
"""docs/federation.md tells the truth: every row has a test that exists, every endpoint served has a row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from minihs.web.route_modules import ROUTE_MODULES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "federation.md").read_text()


class Row(NamedTuple):
    method: str
    """Empty for a feature."""
    name: str
    """The path, its parameters without their names; or the feature."""
    priority: str
    here: str
    test: str


def rows() -> list[Row]:
    found = []
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells or set(cells[0]) <= {"-", ""}:
            continue  # the head of a table
        if cells[0] in ("GET", "PUT", "POST"):
            method, path, _, priority, here, test = cells
            found.append(Row(method, without_names(path.strip("`")), priority, here, test.strip("`")))
        else:
            name, _, priority, here, test = cells
            found.append(Row("", name, priority, here, test.strip("`")))
    return found


def without_names(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def served() -> set[tuple[str, str]]:
    """Methods and paths of the federation routes; those that differ in the slash at their end are one."""
    return {
        (route.method, without_names(path).rstrip("/"))
        for module in ROUTE_MODULES
        for route in module.routes.all
        if route.api == "federation"
        for path in route.paths
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.method} {row.name}".strip())
def test_each_row_names_a_test_that_exists(row: Row) -> None:
    assert row.priority in ("must", "should", "could")
    path, _, name = row.test.partition("::")
    assert re.search(rf"^ *(?:async )?def {re.escape(name)}\(", (ROOT / path).read_text(), re.M), row.test


def test_each_endpoint_that_is_served_has_a_row_and_the_other_way_round() -> None:
    listed = {(row.method, row.name) for row in rows() if row.method and "M_UNRECOGNIZED" not in row.here}
    assert listed == served()


def test_no_row_stands_twice() -> None:
    names = [(row.method, row.name) for row in rows()]
    assert len(set(names)) == len(names)
    assert len(names) > 80


def test_what_is_not_served_is_explained_among_the_quirks() -> None:
    quirks = (ROOT / "docs" / "quirks.md").read_text()
    for row in rows():
        if "M_UNRECOGNIZED" in row.here:
            assert row.name.replace("/{}", "") in quirks, row.name
