# SPDX-License-Identifier: Apache-2.0
"""`minihs push test`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from minihs import config

from .kit import free_port, minihs, post, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "minihs.toml").write_text(
        f"""
        server_name = "example.org"
        data_dir = "data"
        [[listen]]
        address = "127.0.0.1:{free_port()}"
        [federation]
        allow_networks = ["127.0.0.0/8"]
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


class Gateway(BaseHTTPRequestHandler):
    """A push gateway: keeps what it is sent, and rejects the keys that begin with "old"."""

    received: list[dict[str, Any]]

    def do_POST(self) -> None:
        notification = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["notification"]
        self.received.append(notification)
        keys = [device["pushkey"] for device in notification["devices"]]
        answer = json.dumps({"rejected": [key for key in keys if key.startswith("old")]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def gateway() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL, and what comes there."""
    received: list[dict[str, Any]] = []
    handler = type("Handler", (Gateway,), {"received": received})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/_matrix/push/v1/notify", received
        finally:
            server.shutdown()
            thread.join()


def test_each_app_is_told_the_count_and_what_came_of_it_is_printed(folder: Path) -> None:
    port = int(config.load(folder / "minihs.toml", {}).listen[0].tcp[1])
    with serving(folder) as server, gateway() as (url, received):
        server.wait_until_ready(port)
        minihs("user", "add", "alice", "--password-stdin", cwd=folder, stdin="open sesame\n")
        body = {"type": "m.login.password", "user": "alice", "password": "open sesame"}
        _, login = post(port, "/_matrix/client/v3/login", body)

        def add_pusher(app_id: str, pushkey: str, url: str = url) -> None:
            names = {"app_display_name": "App", "device_display_name": "Phone", "lang": "en"}
            pusher = {"kind": "http", "app_id": app_id, "pushkey": pushkey, "data": {"url": url}, **names}
            status, _ = post(port, "/_matrix/client/v3/pushers/set", pusher, login["access_token"])
            assert status == 200

        add_pusher("org.example.app", "key")
        result = minihs("push", "test", "alice", cwd=folder)
        assert (result.returncode, result.stdout) == (0, "org.example.app: accepts\n")
        [notification] = received
        assert notification["counts"] == {}  # counts of zero are left out
        assert [device["pushkey"] for device in notification["devices"]] == ["key"]

        add_pusher("org.example.old", "old key")
        add_pusher("org.example.gone", "key", f"http://127.0.0.1:{free_port()}/_matrix/push/v1/notify")
        result = minihs("push", "test", "alice", cwd=folder)
        assert result.returncode == 1
        said = dict(line.split(": ", 1) for line in result.stdout.splitlines())
        assert said["org.example.app"] == "accepts"
        assert said["org.example.old"] == "rejects the key"
        assert "accepts" not in said["org.example.gone"]
        assert result.stderr == ""
