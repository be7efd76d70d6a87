# SPDX-License-Identifier: Apache-2.0
"""`minihs peers`: which other servers answer, and what waits for them; `peers retry HOST`: try one now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import trio

from minihs.cli import admin_socket, settings
from minihs.cli.asking import show, when
from minihs.config import Config
from minihs.federation.peers import peers
from minihs.matrix.errors import MatrixError
from minihs.runtime import Runtime
from minihs.store import destinations
from minihs.store.database import Database


def listing(path: Path | None, *, as_json: bool) -> int:
    return show(
        path,
        route="/_minihs/admin/peers",
        body={},
        read=lambda db, now: {"peers": peers(db)},
        text=listing_text,
        as_json=as_json,
    )


def listing_text(answer: dict[str, Any]) -> str:
    found = answer["peers"]
    if not found:
        return "No other server has been met yet."
    lines = []
    for peer in found:
        waiting = f"{peer['pdus_waiting']} events and {peer['edus_waiting']} messages wait"
        line = f"{peer['host']}: {peer['state']}, last answered {when(peer['last_success'])}, {waiting}"
        if peer["state"] != "ok":
            line += f"\n  since {when(peer['failing_since'])}, next try {when(peer['retry_at'])}"
            line += f": {peer['last_error']}"
        if not peer["shares_a_room"]:
            line += " (shares no room)"
        lines.append(line)
    return "\n".join(lines)


def retry(path: Path | None, host: str) -> int:
    config = settings.require(path)
    try:
        answer = admin_socket.ask(config, "/_minihs/admin/peers/retry", {"host": host})
    except MatrixError as refusal:
        print(f"minihs: {refusal.message}", file=sys.stderr)
        return 1
    if answer is not None:
        print(f"{host} is tried now; `minihs peers` shows what comes of it.")
    else:
        trio.run(_forget_failures, config, host)
        print(f"{host} will be tried as soon as the server is started.")
    return 0


async def _forget_failures(config: Config, host: str) -> None:
    async with Database.open(config.database_path, Runtime()) as db:
        await db.write(lambda tx: destinations.heard_from(tx, host))
