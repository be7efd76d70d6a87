# SPDX-License-Identifier: Apache-2.0
"""docs/security.md and this folder are one list."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
TEXT = (FOLDER.parent.parent / "docs" / "security.md").read_text()


def test_every_advisory_has_its_file_and_every_file_its_advisory() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| `(test_\w+\.py)` \|$", TEXT, re.M)
    assert len(rows) == len([line for line in TEXT.splitlines() if line.startswith("| ")]) - 4  # heads
    named = [row[3] for row in rows]
    assert len(set(named)) == len(named)
    assert set(named) == {path.name for path in FOLDER.glob("test_*.py")} - {Path(__file__).name}


def test_a_file_says_which_advisory_it_is_about() -> None:
    for path in FOLDER.glob("test_cve_*.py"):
        number = "-".join(path.stem.split("_")[1:]).upper()
        assert number in path.read_text(), path.name
        assert f"| {number} |" in TEXT, path.name


def test_a_file_attacks_a_running_server() -> None:
    """But for those whose advisory is about what happens before there is one."""
    without = {"test_cve_2019_5885.py", "test_cve_2026_24044.py", "test_list.py"}
    for path in FOLDER.glob("test_*.py"):
        assert path.name in without or "async with siege(" in path.read_text(), path.name
