# SPDX-License-Identifier: Apache-2.0
"""Requests of sliding sync, and a client that keeps what it was told."""

from __future__ import annotations

import json
from typing import Any

from minihs.store import account_data
from tests.sync.world import Json, World

EVERYTHING = [["*", "*"]]
LAZY = [["*", "*"], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]


def rooms(limit: int = 10, state: Any = None, first: int = 0, last: int = 99, **filters: Any) -> Json:
    """A body with one list, `all`."""
    wish: Json = {"ranges": [[first, last]], "timeline_limit": limit, "required_state": state or []}
    if filters:
        wish["filters"] = filters
    return {"lists": {"all": wish}}


def said(room: Json) -> list[str]:
    """The messages in a room's timeline."""
    return [
        event["content"]["body"] for event in room.get("timeline", ()) if event["type"] == "m.room.message"
    ]


def state(room: Json) -> dict[tuple[str, str], Json]:
    """(type, state key) → content, of its required_state."""
    return {(event["type"], event["state_key"]): event["content"] for event in room.get("required_state", ())}


async def put(world: World, user: str, type: str, content: Json, room: str = "") -> None:
    """Account data."""
    text = json.dumps(content)
    await world.db.write(lambda tx: account_data.put(tx, user, type, text, room))


class Connection:
    """A client that goes from one answer to the next."""

    def __init__(self, world: World, user: str, **request: Any) -> None:
        self.world, self.user, self.request = world, user, request
        self.pos = ""

    async def next(self, **changes: Any) -> Json:
        """The next answer. `changes`: of the request, kept for later ones too."""
        self.request |= changes
        answer = await self.world.slide(self.user, self.pos, **self.request)
        self.pos = answer["pos"]
        return answer

    async def told(self, **changes: Any) -> Json:
        """The rooms of the next answer."""
        found: Json = (await self.next(**changes))["rooms"]
        return found
