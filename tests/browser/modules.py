# SPDX-License-Identifier: Apache-2.0
"""The npm packages of these tests, installed once, as package-lock.json pins them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js with npm")


def install_modules() -> None:
    if not (HERE / "node_modules" / "matrix-js-sdk").exists():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        made = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
