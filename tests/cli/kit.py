# SPDX-License-Identifier: Apache-2.0
"""Running `minihs` as a process of its own."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VERSIONS = "/_matrix/client/versions"
START_SECONDS = 30.0


def minihs(
    *arguments: str, cwd: Path, stdin: str = "", timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minihs", *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A running `minihs serve`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log_path = folder / "log.txt"
        self._log = self.log_path.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minihs", "serve", *arguments], cwd=folder, stderr=self._log
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._log.close()

    def wait_until_ready(self, port: int, context: ssl.SSLContext | None = None) -> dict[str, Any]:
        """Ask until GET /versions answers 200, as the contract says; returns its JSON."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                status, answer = get(port, VERSIONS, context)
            except OSError:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                time.sleep(0.1)
            else:
                assert status == 200
                return answer


def get(port: int, path: str, context: ssl.SSLContext | None = None) -> tuple[int, dict[str, Any]]:
    connection = (
        http.client.HTTPConnection("localhost", port, timeout=10)
        if context is None
        else http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def post(port: int, path: str, body: dict[str, Any], token: str = "") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Process]:
    process = Process(folder, *arguments)
    try:
        yield process
    finally:
        process.close()
