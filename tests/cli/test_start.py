# SPDX-License-Identifier: Apache-2.0
"""What a start imports: each module costs time before the first answer, and memory for as long as it runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

RARELY_NEEDED = {
    "PIL": "thumbnails, and those in a process of their own",
    "acme": "certificates",
    "cryptography": "X.509; signatures are PyNaCl's",
    "dns": "the first look-up",
    "prometheus_client": "metrics",
    "rich": "tracebacks in colour",
    "sqlite_utils": "migrations",
    "trustme": "tests",
}

MOST_MODULES = 1100
"""There were 1,050 when this was written, 1,230 with some of the above."""


@pytest.fixture(scope="module")
def imported() -> list[str]:
    code = "import minihs.__main__, minihs.cli.serve, json, sys; print(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    names: list[str] = json.loads(run.stdout)
    return names


@pytest.mark.parametrize("package", RARELY_NEEDED)
def test_what_a_start_can_do_without_is_not_imported(package: str, imported: list[str]) -> None:
    inside = [name for name in imported if name.startswith(f"{package}.")]
    assert inside == [], f"{package} is for: {RARELY_NEEDED[package]}"


def test_a_start_imports_few_modules(imported: list[str]) -> None:
    assert len(imported) <= MOST_MODULES
