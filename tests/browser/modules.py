# SPDX-License-Identifier: Apache-2.0
"""The npm packages of these tests, installed once, as package-lock.json pins them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="no Node.js with npm")


def install_modules() -> None:
    wanted = json.loads((HERE / "package.json").read_text())["devDependencies"]
    if not all((HERE / "node_modules" / name).exists() for name in wanted):
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        made = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
