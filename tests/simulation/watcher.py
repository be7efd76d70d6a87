# SPDX-License-Identifier: Apache-2.0
"""A client that syncs for ever, as a person's phone does: what its room's timeline brought, gaps filled from
/messages."""

from __future__ import annotations

import json
from typing import Any

import trio

from minihs.federation.http import HttpFailure
from minihs.testing.api import ApiClient


class Watcher:
    """Follows one room from before the first event that matters."""

    def __init__(self, client: ApiClient, room_id: str, *, limit: int) -> None:
        self.client = client
        self.room_id = room_id
        self.timeline: list[dict[str, Any]] = []
        """What /sync itself gave."""
        self.filled: dict[str, dict[str, Any]] = {}
        """What was found in gaps. It may overlap with the timeline: pages go by the order of the graph, /sync
        by the order of arrival."""
        self.gaps = 0
        self._filter = json.dumps({"room": {"timeline": {"limit": limit}}})

    def __repr__(self) -> str:
        return f"<Watcher {self.client.user_id}>"

    async def run(self) -> None:
        while True:
            await self.step(600_000)

    async def step(self, timeout_ms: int) -> None:
        """One /sync; with a broken connection it is asked again from the same place, a little later."""
        since = self.client.since
        try:
            answer = await self.client.sync(timeout_ms, filter=self._filter)
            room = answer["rooms"]["join"].get(self.room_id, {}) if "join" in answer.get("rooms", {}) else {}
            timeline = room.get("timeline", {})
            if timeline.get("limited") and since is not None:
                self.gaps += 1
                await self._fill(since, timeline["prev_batch"])
            self.timeline += timeline.get("events", [])
        except HttpFailure:
            self.client.since = since
            await trio.sleep(2)

    async def _fill(self, since: str, prev_batch: str) -> None:
        """Fetch what lies between two places."""
        start: str | None = prev_batch
        while start is not None:
            page = await self.client.get(
                f"/rooms/{self.room_id}/messages", dir="b", limit=50, to=since, **{"from": start}
            )
            self.filled |= {event["event_id"]: event for event in page["chunk"]}
            start = page.get("end")

    def seen(self) -> dict[str, dict[str, Any]]:
        return self.filled | {event["event_id"]: event for event in self.timeline}

    async def history(self) -> list[dict[str, Any]]:
        """All of the room that can be scrolled back to, newest first."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"dir": "b", "limit": 50}
        while True:
            page = await self.client.get(f"/rooms/{self.room_id}/messages", **query)
            found += page["chunk"]
            if "end" not in page:
                return found
            query["from"] = page["end"]
