# SPDX-License-Identifier: Apache-2.0
"""`minihs push test`: do notifications reach a user's phone?"""

from __future__ import annotations

import sys
from pathlib import Path

from minihs.cli import admin_socket, settings
from minihs.cli.user import local_name
from minihs.config import ConfigError
from minihs.matrix.errors import MatrixError


def test(path: Path | None, name: str) -> int:
    """Have the running server tell each of the user's push gateways the count of unread messages."""
    config = settings.require(path)
    user_id = f"@{local_name(name, config)}:{config.server_name}"
    try:
        answer = admin_socket.ask(config, "/_minihs/admin/push_test", {"user_id": user_id})
    except MatrixError as refusal:
        print(f"minihs: {refusal.message}", file=sys.stderr)
        return 1
    if answer is None:
        raise ConfigError("no server runs on this data folder, and only a running one pushes.")
    results: dict[str, str] = answer["results"]
    if not results:
        print(f"{user_id} has no pushers: no app of theirs has asked for notifications.")
        return 1
    for app_id, result in results.items():
        print(f"{app_id}: {result}")
    return 0 if set(results.values()) == {"accepts"} else 1
