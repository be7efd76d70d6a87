# SPDX-License-Identifier: Apache-2.0
"""`minihs init`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from minihs import config
from minihs.cli.parser import run
from minihs.signing_key import load


def test_it_writes_a_configuration_that_works_and_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "minihs.toml"
    assert run(["init", "example.org", "--config", str(path)]) == 0
    written = config.load(path, {})
    assert written.server_name == "example.org"
    assert written.data_path == tmp_path / "minihs-data"
    key = load(written.signing_key_path)
    assert key.key_id in capsys.readouterr().out
    assert stat.S_IMODE(written.signing_key_path.stat().st_mode) == 0o600


def test_it_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "minihs.toml"
    path.write_text("precious")
    assert run(["init", "example.org", "--config", str(path)]) == 2
    assert path.read_text() == "precious"
    assert "not overwritten" in capsys.readouterr().err
    path.unlink()
    assert run(["init", "example.org", "--config", str(path)]) == 0
    key = (tmp_path / "minihs-data" / "signing.key").read_text()
    path.unlink()
    assert run(["init", "example.org", "--config", str(path)]) == 0
    assert (tmp_path / "minihs-data" / "signing.key").read_text() == key


@pytest.mark.parametrize("name", ["", "https://example.org", "a b", 'a"b', "example.org:99999"])
def test_it_refuses_what_is_no_server_name(name: str, tmp_path: Path) -> None:
    assert run(["init", name, "--config", str(tmp_path / "minihs.toml")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_odd_folders_are_quoted_rightly(tmp_path: Path) -> None:
    path = tmp_path / "minihs.toml"
    odd = tmp_path / 'a "quoted" \\ folder é'
    assert run(["init", "example.org", "--config", str(path), "--data-dir", str(odd)]) == 0
    assert config.load(path, {}).data_path == odd


def test_a_damaged_key_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "signing.key").write_text("not a key")
    with pytest.raises(config.ConfigError, match="Restore it from a backup"):
        load(tmp_path / "signing.key")
