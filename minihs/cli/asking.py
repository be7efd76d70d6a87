# SPDX-License-Identifier: Apache-2.0
"""Reading verbs: the running server is asked; without one, its database is opened here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from minihs.cli import admin_socket, settings
from minihs.matrix.errors import MatrixError
from minihs.runtime import Runtime
from minihs.store.database import Database, Reader

type JsonObject = dict[str, Any]


def show(
    path: Path | None,
    *,
    route: str,
    body: JsonObject,
    read: Callable[[Reader, int], JsonObject],
    text: Callable[[JsonObject], str],
    as_json: bool,
) -> int:
    """Ask, and print the answer: for people by `text`, or as JSON. `read`: the same from the database."""
    config = settings.require(path)
    try:
        answer = admin_socket.ask(config, route, body)
        if answer is None:
            answer = trio.run(_read_directly, config.database_path, read)
    except MatrixError as refusal:
        print(f"minihs: {refusal.message}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2, ensure_ascii=False) if as_json else text(answer))
    return 0


async def _read_directly(path: Path, read: Callable[[Reader, int], JsonObject]) -> JsonObject:
    runtime = Runtime()
    async with Database.open(path, runtime) as db:
        now = runtime.clock.now_ms()
        return await db.scan(lambda reader: read(reader, now))


def when(ms: int | None) -> str:
    """A point of time for people."""
    if ms is None:
        return "never"
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
