# SPDX-License-Identifier: Apache-2.0
"""The texts in the repository say what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minihs.cli import limits as cli_limits
from minihs.web import rate_limits

ROOT = Path(__file__).parent.parent


def test_the_readme_maps_every_package_and_module() -> None:
    mapped = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.M))
    packages = {f"minihs/{path.parent.name}" for path in ROOT.glob("minihs/*/__init__.py")}
    modules = {f"minihs/{path.name}" for path in ROOT.glob("minihs/*.py") if "__" not in path.name}
    assert {name for name in mapped if name.startswith("minihs/")} == packages | modules


def test_the_readme_names_only_scripts_that_exist() -> None:
    for name in re.findall(r"scripts/([a-z-]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111, name


def test_links_between_the_texts_lead_somewhere() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    for text in texts:
        for target in re.findall(r"\]\(([^)#:]+)\)", text.read_text()):
            assert (text.parent / target).exists(), f"{text.name}: {target}"


UNITS = (1, 1000, 1024, 1024**2, 60, 3600_000, 24 * 3600_000)
"""What a constant may be divided by to be the number in the text: ms to s, bytes to KiB, ms to days."""


def limits() -> list[tuple[str, str, str]]:
    """(module, constant, what the text says) of every row of docs/limits.md."""
    return [
        (module, name, row.said)
        for row in cli_limits.table(cli_limits.text())
        for module, name in row.constants
    ]


@pytest.mark.parametrize(("module", "name", "said"), limits())
def test_a_documented_limit_is_the_limit(module: str, name: str, said: str) -> None:
    numbers = {float(text) for text in re.findall(r"[\d.]+", re.sub(r"(?<=\d),(?=\d)", "", said))}
    value = cli_limits.value_of(module, name)
    values = value.values() if isinstance(value, dict) else [value]
    assert any(each / unit in numbers for each in values for unit in UNITS), f"{name} is {value}"


def test_the_rate_limits_are_documented_as_they_are() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    rows = re.findall(r"^\| `([a-z]+)` \| ([\d.]+) \| (\d+) \|$", text, re.M)
    documented = {name: (float(rate), int(burst)) for name, rate, burst in rows}
    actual = {name: (limit.per_second, limit.burst) for name, limit in rate_limits.LIMITS.items()}
    assert documented == actual


def test_every_source_file_names_its_licence() -> None:
    for path in [*ROOT.glob("minihs/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        text = path.read_text()
        assert not text or text.startswith("# SPDX-License-Identifier: Apache-2.0\n"), path
