# SPDX-License-Identifier: Apache-2.0
"""`minihs user add`, `invite` and `password`, with the server down and with the server up."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from minihs import config
from minihs.runtime import Runtime
from minihs.store import users as user_store
from minihs.store.database import Database

from .kit import free_port, minihs, post, serving


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


async def stored(folder: Path, user_id: str) -> user_store.User | None:
    loaded = config.load(folder / "minihs.toml", {})
    async with Database.open(loaded.database_path, Runtime()) as db:
        return user_store.get(db.read, user_id)


async def test_an_account_is_made_while_the_server_is_down(folder: Path) -> None:
    result = minihs("user", "add", "alice", "--password-stdin", cwd=folder, stdin="open sesame\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert "@alice:example.org" in result.stdout
    user = await stored(folder, "@alice:example.org")
    assert user is not None
    assert not user.admin


async def test_an_account_is_made_while_the_server_is_up(folder: Path) -> None:
    port = int(config.load(folder / "minihs.toml", {}).listen[0].tcp[1])
    with serving(folder) as server:
        server.wait_until_ready(port)
        socket_path = folder / "data" / "admin.sock"
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        result = minihs(
            "user", "add", "@bob:example.org", "--admin", "--password-stdin", cwd=folder, stdin="pw pw pw\n"
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert "administrator" in result.stdout
        again = minihs("user", "add", "bob", "--password-stdin", cwd=folder, stdin="pw pw pw\n")
        assert again.returncode == 1
        assert "taken" in again.stderr.lower() or "in use" in again.stderr.lower()
        assert server.stop() == 0
    assert not socket_path.exists()
    user = await stored(folder, "@bob:example.org")
    assert user is not None
    assert user.admin


@pytest.mark.parametrize(
    ("name", "password", "complaint"),
    [
        ("alice", "\n", "empty"),
        ("@alice:elsewhere.org", "pw\n", "not of this server"),
        ("al ice", "pw pw pw pw\n", "a-z"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(
    folder: Path, name: str, password: str, complaint: str
) -> None:
    result = minihs("user", "add", name, "--password-stdin", cwd=folder, stdin=password)
    assert result.returncode != 0
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_without_any_server_it_says_what_to_do(tmp_path: Path) -> None:
    result = minihs("user", "add", "alice", "--password-stdin", cwd=tmp_path, stdin="pw\n")
    assert result.returncode == 2
    assert "minihs init" in result.stderr


async def test_without_a_terminal_it_says_how_to_give_the_password(folder: Path) -> None:
    result = minihs("user", "add", "alice", cwd=folder, stdin="")
    assert result.returncode != 0
    assert "--password-stdin" in result.stderr
    assert "Traceback" not in result.stderr


def the_link(result: Any) -> str:
    assert result.returncode == 0, result.stderr
    assert "until" in result.stderr
    base, _, token = result.stdout.strip().partition("#")
    assert base == "https://example.org/_matrix/static/client/invitation/"
    return str(token)


async def test_an_invitation_made_while_the_server_is_down_or_up_makes_one_account(folder: Path) -> None:
    port = int(config.load(folder / "minihs.toml", {}).listen[0].tcp[1])
    tokens = [the_link(minihs("user", "invite", cwd=folder))]
    with serving(folder) as server:
        server.wait_until_ready(port)
        tokens.append(the_link(minihs("user", "invite", "--days", "1", cwd=folder)))
        for token, name in zip(tokens, ["carol", "dan"], strict=True):
            body = {
                "username": name,
                "password": "open sesame",
                "inhibit_login": True,
                "auth": {"type": "m.login.registration_token", "token": token},
            }
            status, answer = post(port, "/_matrix/client/v3/register", body)
            assert (status, answer["user_id"]) == (200, f"@{name}:example.org")
        status, _ = post(port, "/_matrix/client/v3/register", {**body, "username": "eve"})
        assert status == 403
        assert server.stop() == 0
    assert await stored(folder, "@carol:example.org") is not None
    assert await stored(folder, "@eve:example.org") is None


def log_in(port: int, password: str) -> tuple[int, dict[str, Any]]:
    body = {"type": "m.login.password", "user": "alice", "password": password}
    return post(port, "/_matrix/client/v3/login", body)


def test_a_forgotten_password_is_set_anew_with_the_server_down_or_up(folder: Path) -> None:
    port = int(config.load(folder / "minihs.toml", {}).listen[0].tcp[1])
    minihs("user", "add", "alice", "--password-stdin", cwd=folder, stdin="forgotten\n")
    result = minihs("user", "password", "alice", "--password-stdin", cwd=folder, stdin="the second\n")
    assert (result.returncode, result.stderr) == (0, "")
    with serving(folder) as server:
        server.wait_until_ready(port)
        assert log_in(port, "forgotten")[0] == 403
        status, login = log_in(port, "the second")
        assert status == 200
        token = login["access_token"]
        name = "@alice:example.org"
        result = minihs("user", "password", name, "--password-stdin", cwd=folder, stdin="third\n")
        assert result.returncode == 0
        assert log_in(port, "third")[0] == 200
        openid = f"/_matrix/client/v3/user/{name}/openid/request_token"
        assert post(port, openid, {}, token)[0] == 200  # still logged in
        result = minihs("user", "password", name, "--log-out", "--password-stdin", cwd=folder, stdin="4th\n")
        assert "logged out" in result.stdout
        assert post(port, openid, {}, token)[0] == 401
        result = minihs("user", "password", "nobody", "--password-stdin", cwd=folder, stdin="x\n")
        assert result.returncode == 1
        assert "no such account" in result.stderr


@pytest.mark.parametrize("days", ["0", "366", "-1"])
def test_an_invitation_has_an_end(folder: Path, days: str) -> None:
    result = minihs("user", "invite", f"--days={days}", cwd=folder)
    assert result.returncode == 2
    assert "--days" in result.stderr
