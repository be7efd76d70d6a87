# SPDX-License-Identifier: Apache-2.0
"""The texts in the repository say what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

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


def limits() -> list[tuple[str, str]]:
    """(module, constant) of every row of docs/limits.md."""
    text = (ROOT / "docs" / "limits.md").read_text()
    rows = re.findall(r"`([a-z0-9_/]+\.py)` (`[A-Z_]+`(?:, `[A-Z_]+`)*)", text)
    return [(module, name) for module, names in rows for name in re.findall(r"[A-Z_]+", names)]


@pytest.mark.parametrize(("module", "name"), limits())
def test_a_documented_limit_exists(module: str, name: str) -> None:
    imported = importlib.import_module("minihs." + module.removesuffix(".py").replace("/", "."))
    assert hasattr(imported, name)


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
