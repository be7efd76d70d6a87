# SPDX-License-Identifier: Apache-2.0
"""`minihs push test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs import config

from .kit import free_port, minihs, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "minihs.toml").write_text(
        f"""
        server_name = "example.org"
        data_dir = "data"
        [[listen]]
        address = "127.0.0.1:{free_port()}"
        """
    )
    return tmp_path


def test_it_says_that_a_server_must_run(folder: Path) -> None:
    result = minihs("push", "test", "alice", cwd=folder)
    assert result.returncode == 2
    assert "no server runs" in result.stderr


def test_a_user_without_apps_is_told_so_and_a_stranger_not_found(folder: Path) -> None:
    port = int(config.load(folder / "minihs.toml", {}).listen[0].tcp[1])
    with serving(folder) as server:
        server.wait_until_ready(port)
        added = minihs("user", "add", "alice", "--password-stdin", cwd=folder, stdin="open sesame\n")
        assert added.returncode == 0
        result = minihs("push", "test", "@alice:example.org", cwd=folder)
        assert result.returncode == 1
        assert "no pushers" in result.stdout
        result = minihs("push", "test", "bob", cwd=folder)
        assert result.returncode == 1
        assert "no such account" in result.stderr
