# SPDX-License-Identifier: Apache-2.0
"""`minihs explain`, `peers` and `keys rotate`, with and without a running server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from minihs.cli import keys, settings
from minihs.federation.own_keys import OLD_KEYS_FILE, read_old_keys
from minihs.matrix import unpadded
from minihs.runtime import Runtime
from minihs.signing_key import load

from .kit import Process, free_port, get, minihs, serving


@contextmanager
def server(folder: Path) -> Iterator[tuple[Process, int]]:
    port = free_port()
    (folder / "minihs.toml").write_text(
        f'server_name = "example.org"\n[[listen]]\naddress = "127.0.0.1:{port}"\n'
    )
    with serving(folder) as process:
        process.wait_until_ready(port)
        yield process, port


def ask(port: int, method: str, path: str, body: Any, token: str = "") -> Any:
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, "/_matrix/client/v3" + path, json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    assert response.status == 200, answer
    return answer


def verb(folder: Path, *arguments: str) -> str:
    done = minihs(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rooms_and_peers_are_told_of_with_and_without_a_server(tmp_path: Path) -> None:
    with server(tmp_path) as (process, port):
        minihs("user", "add", "alice", "--password-stdin", cwd=tmp_path, stdin="password of alice\n")
        login = ask(
            port,
            "POST",
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "alice"},
                "password": "password of alice",
            },
        )
        token = login["access_token"]
        room = ask(port, "POST", "/createRoom", {"name": "Hall"}, token)["room_id"]
        path = f"/rooms/{quote(room)}/send/m.room.message/t1"
        event_id = ask(port, "PUT", path, {"msgtype": "m.text", "body": "hello"}, token)["event_id"]

        verbs = (
            ("explain", "event", event_id, "--json"),
            ("explain", "state", room, "m.room.name", "--json"),
            ("explain", "room", room, "--json"),
            ("peers", "--json"),
        )
        online = [json.loads(verb(tmp_path, *each)) for each in verbs]
        assert online[0]["outcome"] == "accepted"
        assert online[1]["current"]["type"] == "m.room.name"
        assert online[2]["local_members"] == ["@alice:example.org"]
        assert online[3] == {"peers": []}
        assert "is tried now" in verb(tmp_path, "peers", "retry", "other.example")
        assert minihs("peers", "retry", "no such name!", cwd=tmp_path).returncode == 1
        refused = minihs("explain", "event", "$nothing", cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "never kept such an event" in refused.stderr
        refused = minihs("keys", "rotate", cwd=tmp_path)
        assert refused.returncode == 2
        assert "Stop it" in refused.stderr
        process.stop()

    assert [json.loads(verb(tmp_path, *each)) for each in verbs[:3]] == online[:3]
    assert f"{event_id}: accepted" in verb(tmp_path, "explain", "event", event_id)
    assert "Hall" not in verb(tmp_path, "explain", "room", room)  # no contents: they are the members' own
    # The server that was tried is known since.
    assert "other.example" in verb(tmp_path, "peers")
    assert "will be tried" in verb(tmp_path, "peers", "retry", "other.example")


def test_a_key_that_was_rotated_stays_published(tmp_path: Path) -> None:
    with server(tmp_path) as (process, port):
        _, before = get(port, "/_matrix/key/v2/server")
        process.stop()
    verb(tmp_path, "keys", "rotate")
    verb(tmp_path, "keys", "rotate")
    with server(tmp_path) as (_, port):
        _, after = get(port, "/_matrix/key/v2/server")
    (old_id,) = before["verify_keys"]
    (new_id,) = after["verify_keys"]
    assert new_id != old_id
    assert len(after["old_verify_keys"]) == 2
    assert after["old_verify_keys"][old_id]["key"] == before["verify_keys"][old_id]["key"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert minihs("init", "example.org", cwd=tmp_path).returncode == 0
    return tmp_path


def test_a_rotation_that_was_interrupted_can_be_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings.require(None)
    first = load(config.signing_key_path)

    def fail(*_: object) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(keys, "write_whole", fail)
        with pytest.raises(OSError, match="power"):
            keys.replace_key(config, Runtime())
    assert load(config.signing_key_path).key_id == first.key_id
    with monkeypatch.context() as patch:
        patch.setattr(keys, "sync_folder", fail)
        with pytest.raises(OSError, match="power"):
            keys.replace_key(config, Runtime())
    old_id, new_id = keys.replace_key(config, Runtime())
    retired = read_old_keys(config.data_path / OLD_KEYS_FILE)
    assert old_id in retired
    assert unpadded.encode(retired[first.key_id].public_key) == first.verify_key_base64
    assert load(config.signing_key_path).key_id == new_id
    assert new_id not in retired
    assert config.signing_key_path.stat().st_mode & 0o077 == 0
