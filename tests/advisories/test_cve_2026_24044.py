# SPDX-License-Identifier: Apache-2.0
"""CVE-2026-24044: servers were set up with a signing key that everybody knew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minihs import signing_key
from minihs.config import ConfigError
from minihs.matrix import unpadded
from minihs.runtime import SystemRandomness

ROOT = Path(__file__).parent.parent.parent


def test_each_server_makes_a_key_of_its_own(tmp_path: Path) -> None:
    keys = [
        signing_key.load_or_create(tmp_path / str(number) / "signing.key", SystemRandomness())
        for number in range(5)
    ]
    assert len({key.verify_key for key in keys}) == 5
    assert (tmp_path / "0" / "signing.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "seed",
    [
        "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",  # of the specification's appendix
        unpadded.encode(bytes(32)),
        unpadded.encode(b"\xff" * 32),
        unpadded.encode(b"test" * 8),
        unpadded.encode(bytes(range(32))),
    ],
)
def test_a_key_that_others_know_is_refused(tmp_path: Path, seed: str) -> None:
    path = tmp_path / "signing.key"
    path.write_text(f"ed25519 1 {seed}\n")
    with pytest.raises(ConfigError, match="known to others"):
        signing_key.load(path)


def test_no_key_comes_with_the_code() -> None:
    line = re.compile(r"^ed25519 \w+ [A-Za-z0-9+/]{43}=?$", re.M)
    shipped = [
        *ROOT.glob("minihs/**/*"),
        *ROOT.glob("docs/*"),
        *ROOT.glob("scripts/*"),
        *ROOT.glob("*.toml*"),
    ]
    for path in shipped:
        if path.is_file() and path.suffix not in (".pyc", ".so"):
            assert not line.search(path.read_text(errors="replace")), path
