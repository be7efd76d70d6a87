# SPDX-License-Identifier: Apache-2.0
"""Jumping to a time for which only another server has the history."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from minihs.testing.api import ApiClient, ApiError
from minihs.testing.servers import cluster


async def at(client: ApiClient, room_id: str, ts: int, direction: str) -> str:
    path = f"/_matrix/client/v1/rooms/{quote(room_id, safe='')}/timestamp_to_event"
    answer = await client.get(path, ts=ts, dir=direction)
    return str(answer["event_id"])


async def context_of(client: ApiClient, room_id: str, event_id: str) -> list[str]:
    """The messages around an event, in order."""
    answer = await client.get(f"/rooms/{quote(room_id, safe='')}/context/{quote(event_id, safe='')}", limit=4)
    events = [*reversed(answer["events_before"]), answer["event"], *answer["events_after"]]
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


async def test_a_newcomer_jumps_to_what_was_said_long_before(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice = await world["one.test"].user("alice")
        bob = await world["two.test"].user("bob")
        room_id = await alice.create_room(preset="public_chat")
        said, times = [], []
        for number in range(60):
            await trio.sleep(3600)
            times.append(world.clock.now_ms())
            said.append(await alice.send(room_id, f"message {number}"))
        await bob.join(room_id, "one.test")
        day = times[24]
        assert await at(bob, room_id, day, "f") == said[24]
        assert await at(bob, room_id, day - 1800_000, "b") == said[23]
        assert await context_of(bob, room_id, said[24]) == [f"message {number}" for number in (22, 23, 24)]
        # The rest of the history still comes where it belongs.
        texts = []
        token = ""
        for _ in range(20):
            query = {"from": token} if token else {}
            page = await bob.get(f"/rooms/{quote(room_id, safe='')}/messages", dir="b", limit=20, **query)
            texts += [
                event["content"]["body"] for event in page["chunk"] if event["type"] == "m.room.message"
            ]
            token = page.get("end", "")
            if not token:
                break
        assert texts == [f"message {number}" for number in reversed(range(60))]
        wanted = {"search_categories": {"room_events": {"search_term": '"message 24"'}}}
        found = (await bob.post("/search", wanted))["search_categories"]["room_events"]["results"]
        assert [each["result"]["event_id"] for each in found] == [said[24]]


async def test_a_time_after_everything_or_before_it_has_no_event(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice = await world["one.test"].user("alice")
        bob = await world["two.test"].user("bob")
        before = world.clock.now_ms()
        await trio.sleep(60)
        room_id = await alice.create_room(preset="public_chat")
        await alice.send(room_id, "hello")
        await bob.join(room_id, "one.test")
        for ts, direction in ((before, "b"), (world.clock.now_ms() + 3600_000, "f")):
            with pytest.raises(ApiError) as refusal:
                await at(bob, room_id, ts, direction)
            assert refusal.value.errcode == "M_NOT_FOUND"


@pytest.mark.parametrize("query", [{}, {"ts": "1"}, {"ts": "x", "dir": "f"}, {"ts": "1", "dir": "up"}])
async def test_a_bad_request_is_refused(tmp_path: Path, query: dict[str, str]) -> None:
    async with cluster("one.test", folder=tmp_path) as world:
        alice = await world["one.test"].user("alice")
        room_id = await alice.create_room()
        path = f"/_matrix/client/v1/rooms/{quote(room_id, safe='')}/timestamp_to_event"
        status, answer = await alice.ask("GET", path, query=query)
        assert status == 400
        assert answer["errcode"] in ("M_MISSING_PARAM", "M_INVALID_PARAM")
