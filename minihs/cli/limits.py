# SPDX-License-Identifier: Apache-2.0
"""`minihs limits`: every bound of this server, as it is in force.

The rows are those of docs/limits.md, which comes along in the package; the numbers are the constants' own.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minihs.web import rate_limits

_ROW = re.compile(r"\| (.+) \| (.+) \| (`.+`) \|")


@dataclass(frozen=True, slots=True)
class Limit:
    """A row of the table."""

    section: str
    what: str
    said: str
    """The limit in words, with its units."""
    constants: tuple[tuple[str, str], ...]
    """(module below minihs, name)."""

    @property
    def values(self) -> dict[str, Any]:
        """The numbers in force, by where they are."""
        return {f"{module} {name}": value_of(module, name) for module, name in self.constants}


def text() -> str:
    """docs/limits.md: beside the package where that was installed, else in the source tree."""
    package = Path(__file__).parent.parent
    installed = package / "limits.md"
    return (installed if installed.exists() else package.parent / "docs" / "limits.md").read_text("utf-8")


def table(document: str) -> Iterator[Limit]:
    section = ""
    for line in document.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        row = _ROW.fullmatch(line)
        if row is not None:
            yield Limit(section, row[1], row[2], tuple(_constants(row[3])))


def _constants(where: str) -> Iterator[tuple[str, str]]:
    module = ""
    for name in re.findall(r"`([^`]+)`", where):
        if name.endswith(".py"):
            module = name
        else:
            yield module, name


def value_of(module: str, name: str) -> Any:
    imported = importlib.import_module("minihs." + module.removesuffix(".py").replace("/", "."))
    return getattr(imported, name)


def show(*, as_json: bool) -> int:
    rows = list(table(text()))
    rates = rate_limits.LIMITS.items()
    if as_json:
        found: list[dict[str, Any]] = [
            {"section": row.section, "what": row.what, "limit": row.said, "constants": _plain(row.values)}
            for row in rows
        ]
        found += [
            {"section": "How often", "what": name, "a_second": limit.per_second, "at_once": limit.burst}
            for name, limit in rates
        ]
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    section = None
    for row in rows:
        if row.section != section:
            print(f"{'' if section is None else chr(10)}{row.section}")
            section = row.section
        print(f"  {row.what}: {row.said}")
        for where, value in _plain(row.values).items():
            print(f"      {where} = {value}")
    print("\nHow often (a second, at once)")
    for name, limit in rates:
        print(f"  {name}: {limit.per_second:g}, {limit.burst}")
    return 0


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers as they are; a constant with several, by its keys."""
    plain: dict[str, Any] = {}
    for where, value in values.items():
        if isinstance(value, dict):
            plain |= {f"{where}[{getattr(key, 'name', key)}]": each for key, each in value.items()}
        else:
            plain[where] = value
    return plain
