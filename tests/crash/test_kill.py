# SPDX-License-Identifier: Apache-2.0
"""`kill -9` under load loses nothing that was acknowledged and tears nothing.

It proves nothing about a power cut: what the process has written, the kernel still has. See test_disk_faults
for the disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def play(folder: Path, rounds: int, seed: int, timeout: float) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.kill_rounds", str(folder), str(rounds), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["wrong"] == []
    assert report["acknowledged"] > 10 * rounds


def test_a_killed_server_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    play(tmp_path, rounds=10, seed=1, timeout=60)


@pytest.mark.slow
def test_a_server_killed_many_times_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    play(tmp_path, rounds=50, seed=2, timeout=300)
