# SPDX-License-Identifier: Apache-2.0
"""Other people's software from PyPI, each in an environment of its own that is made once per machine."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from tests.interop.kit.homeserver import REPOSITORY


def python_with(requirements: Path, environment: Path) -> Path:
    """An interpreter that has these pinned versions; installs them when they aren't there yet."""
    environment.mkdir(exist_ok=True)
    with (environment / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(requirements, environment)
    return environment / "bin" / "python"


def _install(requirements: Path, environment: Path) -> None:
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest() + f" {sys.version_info[:2]}"
    stamp = environment / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    python = str(environment / "bin" / "python")
    uv = str(REPOSITORY / "scripts" / "uv")
    subprocess.run(
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(environment)], check=True
    )
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(requirements)],
        check=True,
    )
    stamp.write_text(wanted)
