# SPDX-License-Identifier: Apache-2.0
"""Asking the server that runs on a data folder, through the socket there that only its owner can open."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from minihs.config import Config, ConfigError
from minihs.matrix.errors import MatrixError

ANSWER_SECONDS = 60.0


class AdminConnection(http.client.HTTPConnection):
    """HTTP over the server's admin socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def is_running(config: Config) -> bool:
    """Does a server run on this data folder?"""
    connection = AdminConnection(config.admin_socket_path)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def ask(config: Config, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The answer; None if no server runs on this data folder. Raises MatrixError for a refusal."""
    connection = AdminConnection(config.admin_socket_path)
    try:
        connection.connect()
    except OSError:
        connection.close()
        return None
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConfigError(f"the running server did not answer as it should: {error}.") from error
    finally:
        connection.close()
    if response.status != 200:
        raise MatrixError(response.status, answer["errcode"], answer["error"])
    return answer
