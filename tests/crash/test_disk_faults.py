# SPDX-License-Identifier: Apache-2.0
"""A disk that fails under the writer: what was acknowledged is there, and the server knows when it can't
know.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler (or no LD_PRELOAD) here to make the disk fail with")
    target = tmp_path_factory.mktemp("shim") / "fault.so"
    source = Path(__file__).with_name("fault.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", target, source, "-ldl"], check=True, timeout=60
    )
    return target


def play(shim: Path, folder: Path, scenario: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.faults", str(folder), scenario],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("scenario", ["fsync", "write"])
def test_a_commit_that_the_disk_fails_stops_the_writer_and_the_server(
    shim: Path, tmp_path: Path, scenario: str
) -> None:
    """Whether that batch is there after a restart is unknown; so nothing is written after it, and the exit is
    not 0.
    """
    report = play(shim, tmp_path, scenario)
    assert report["wrong"] == []
    assert report["struck"] != 0


@pytest.mark.parametrize("scenario", ["full", "torn"])
def test_a_full_disk_fails_writes_and_nothing_else(shim: Path, tmp_path: Path, scenario: str) -> None:
    """What was refused for lack of space never comes back after a crash: it is failed, not unknown."""
    report = play(shim, tmp_path, scenario)
    assert report["wrong"] == []
    assert report["struck"] != 0
