# SPDX-License-Identifier: Apache-2.0
"""CVE-2019-5885 (and Synapse #5133): secrets that could be guessed, and tokens from a generator that is not
made for secrets."""

from __future__ import annotations

import ast
from pathlib import Path

import minihs
from minihs.runtime import SystemRandomness
from minihs.users.secrets import SECRET_BYTES

ROOT = Path(minihs.__file__).parent


def test_nothing_but_the_test_kit_knows_the_module_random() -> None:
    for path in ROOT.rglob("*.py"):
        if path.is_relative_to(ROOT / "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {"random", "numpy.random"} & set(names), path


def test_secrets_are_long_and_from_the_system() -> None:
    assert SECRET_BYTES >= 16
    tokens = {SystemRandomness().token_urlsafe(SECRET_BYTES) for _ in range(1000)}
    assert len(tokens) == 1000
    assert min(map(len, tokens)) >= 22
    assert len({SystemRandomness().token_bytes(16) for _ in range(1000)}) == 1000
