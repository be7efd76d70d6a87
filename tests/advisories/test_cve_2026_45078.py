# SPDX-License-Identifier: Apache-2.0
"""CVE-2026-45078: one local user kept the server so busy that others had to wait for very long.

Counted, not timed: how many of Bob's requests, of which there are hundreds at once, are done before one of
Alice's that came after them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from tests.advisories.kit import Siege, siege

MANY = 90
"""So many requests at once one address may have open (it has 100 connections)."""


async def done_before(
    at: Siege, loud: Callable[[int], Awaitable[Any]], quiet: Callable[[], Awaitable[Any]]
) -> int:
    """How many of the loud requests, all of them under way, end while the quiet one is under way."""
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        await loud(number)
        done += 1

    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(one, number)
        await trio.lowlevel.checkpoint()
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        before = done
        await quiet()
        return done - before


@pytest.mark.parametrize("what", ["messages in a room", "syncs", "searches", "wrong passwords"])
async def test_one_request_of_another_user_is_not_held_up_by_hundreds(tmp_path: Path, what: str) -> None:
    async with siege(tmp_path) as at:
        bobs = [await at.world["one.test"].user("bob")]
        room = await bobs[0].create_room()
        for _ in range(MANY):
            again = at.world["one.test"].client()
            again.user_id, again.token, again.device_id = bobs[0].user_id, bobs[0].token, bobs[0].device_id
            bobs.append(again)
        for number in range(20):
            await bobs[0].send(room, f"word {number}")
        await at.alice.send(at.room, "warm")

        async def loud(number: int) -> Any:
            bob = bobs[number + 1]
            match what:
                case "messages in a room":
                    path = f"/rooms/{room}/send/m.room.message/n{number}"
                    return await bob.ask("PUT", path, {"msgtype": "m.text", "body": "x"})
                case "syncs":
                    return await bob.ask("GET", "/sync?full_state=true")
                case "searches":
                    term = {"search_categories": {"room_events": {"search_term": "word"}}}
                    return await bob.ask("POST", "/search", term)
                case _:
                    login = {"type": "m.login.password", "password": "wrong"}
                    login["identifier"] = {"type": "m.id.user", "user": "bob"}  # type: ignore[assignment]  # a dict of mixed values
                    return await bob.ask("POST", "/login", login)

        overtaken = await done_before(at, loud, lambda: at.alice.send(at.room, "quiet"))
        assert overtaken < MANY, what
