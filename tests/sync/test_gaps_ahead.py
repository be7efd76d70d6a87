# SPDX-License-Identifier: Apache-2.0
"""A jump into a past that we lack, and the way forward from there: nothing is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from minihs.testing.api import ApiClient
from minihs.testing.clock import run_virtual
from minihs.testing.servers import cluster
from tests.sync.test_messages import Archive, all_pages, cut_off, page
from tests.sync.world import ALICE, World, bodies


class Jump:
    """Bob has joined a room with a long past, and looks at a moment of it."""

    def __init__(self, bob: ApiClient, room: str, said: list[str]) -> None:
        self.bob, self.said = bob, said
        self.home = f"/rooms/{quote(room, safe='')}"

    async def to(self, ts: int) -> tuple[list[str], str]:
        """(what is shown around that time, the token to go on from)"""
        where = await self.bob.ask("GET", f"/_matrix/client/v1{self.home}/timestamp_to_event?ts={ts}&dir=f")
        event_id = quote(where[1]["event_id"], safe="")
        around = await self.bob.get(f"{self.home}/context/{event_id}", limit=10)
        shown = [*around["events_before"][::-1], around["event"], *around["events_after"]]
        return bodies(shown), around["end"]

    async def forward(self, start: str, limit: int = 30) -> tuple[list[str], list[int]]:
        """(all that follows, events on each page)"""
        found: list[str] = []
        sizes: list[int] = []
        end: str | None = start
        while end is not None:
            answer: Any = await self.bob.get(f"{self.home}/messages", dir="f", limit=limit, **{"from": end})
            found += [text for text in bodies(answer["chunk"]) if text in self.said]
            sizes.append(len(answer["chunk"]))
            end = answer.get("end")
            assert len(sizes) < 100
        return found, sizes


@pytest.mark.trio(run=run_virtual)
@pytest.mark.parametrize("count", [40, 250])
@pytest.mark.parametrize("answers", [True, False])
async def test_after_a_jump_the_way_forward_has_no_holes(tmp_path: Path, count: int, answers: bool) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        room = await alice.create_room(preset="public_chat")
        said = [str(number) for number in range(count)]
        moment = 0
        for number, text in enumerate(said):
            await trio.sleep(60)
            if number == 20:
                moment = world.clock.now_ms()
            await alice.send(room, text)
        await bob.join(room, "one.test")
        await trio.sleep(5)
        jump = Jump(bob, room, said)
        around, end = await jump.to(moment)
        assert "20" in around
        assert around == said[said.index(around[0]) : said.index(around[-1]) + 1]
        if not answers:
            await world.stop("one.test")
        found, sizes = await jump.forward(end)
        rest = said[said.index(around[-1]) + 1 :]
        if answers:
            assert found == rest
            assert max(sizes) <= 30
        else:
            assert len(sizes) == 1  # it does not wait for ever for what nobody has
        found, _ = await jump.forward(end, limit=500)
        assert (found == rest) == answers


async def test_before_the_first_event_that_we_have_nothing_is_asked_for(world: World) -> None:
    """Or whoever reads a room from its beginning would have to fetch all of it first."""
    room = await world.room()
    await cut_off(world, room, await world.say(ALICE, room, "first"))
    nid = world.room_nid(room)
    await world.db.write(
        lambda tx: tx.execute(
            "UPDATE events SET topo = NULL WHERE room_nid = ? AND type != 'm.room.message'", (nid,)
        )
    )
    await world.say(ALICE, room, "second")
    archive = Archive(world)
    found = await page(world, ALICE, room, forward=True, history=archive)
    assert bodies(found["chunk"]) == ["first", "second"]
    assert archive.asked == []


async def test_a_page_that_ends_before_the_gap_asks_nobody(world: World) -> None:
    room = await world.room()
    early = [await world.say(ALICE, room, str(number)) for number in range(5)]
    await cut_off(world, room, await world.say(ALICE, room, "after the gap"))
    everything = await all_pages(world, ALICE, room, forward=True)
    assert bodies(everything)[-1] == "after the gap"
    archive = Archive(world)
    to = len(everything) - 2
    found = await page(world, ALICE, room, forward=True, limit=to, history=archive)
    assert [event["event_id"] for event in found["chunk"]][-1] == early[-2]
    assert archive.asked == []
    await page(world, ALICE, room, forward=True, limit=to, start=found["end"], history=archive)
    assert len(archive.asked) == 1
