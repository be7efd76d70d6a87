# SPDX-License-Identifier: Apache-2.0
"""Destinations that blame what they are sent."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from minihs.store import destinations
from tests.federation.sending import Sent, World, gone, refuse, running


@pytest.mark.parametrize("status", [400, 413])
async def test_poison_is_given_up_and_the_rest_delivered_in_order(world: World, status: int) -> None:
    def answer(sent: Sent) -> Any:
        return refuse(status)(sent) if "bad" in sent.bodies else {"pdus": {}}

    world.answers["a.test"] = answer
    bodies = [*(str(number) for number in range(20)), "bad", *(str(number) for number in range(20, 30))]
    for body in bodies:
        await world.send(body, "a.test", "b.test")
    async with running(world) as parts:
        await trio.sleep(100)
        assert parts.failing() == []
        taken = [body for sent in world.to("a.test") if "bad" not in sent.bodies for body in sent.bodies]
        assert taken == [body for body in bodies if body != "bad"]
        assert world.got("b.test") == bodies
        await world.send("after", "a.test")
        await trio.sleep(10)
        assert world.got("a.test")[-1] == "after"


async def test_a_poisonous_edu_is_given_up_too(world: World) -> None:
    def answer(sent: Sent) -> Any:
        return refuse(400)(sent) if any(edu["content"]["n"] == 3 for edu in sent.edus) else {"pdus": {}}

    world.answers["a.test"] = answer
    for number in range(10):
        await world.send_edu("a.test", "m.direct_to_device", {"n": number})
    await world.send("one", "a.test")
    async with running(world):
        await trio.sleep(100)
        assert "one" in world.got("a.test")
        assert world.db.read.execute("SELECT COUNT(*) FROM outbound_edus").fetchone()[0] == 0


async def test_a_destination_that_refuses_everything_is_at_fault_and_loses_nothing(world: World) -> None:
    world.answers["a.test"] = refuse(400)
    for number in range(10):
        await world.send(str(number), "a.test")
    async with running(world) as parts:
        await trio.sleep(3600)
        assert parts.failing() == ["a.test"]
        del world.answers["a.test"]
        start = len(world.sent)
        await trio.sleep(3 * 3600)
        delivered = [body for sent in world.sent[start:] for body in sent.bodies]
        assert delivered == [str(number) for number in range(10)]


async def test_a_failure_in_the_middle_of_a_search_for_poison_loses_nothing(world: World) -> None:
    state = {"calls": 0}

    def answer(sent: Sent) -> Any:
        state["calls"] += 1
        if state["calls"] in (4, 5, 7):
            return gone(sent)
        return refuse(400)(sent) if "bad" in sent.bodies else {"pdus": {}}

    world.answers["a.test"] = answer
    bodies = [*(str(number) for number in range(9)), "bad", *(str(number) for number in range(9, 16))]
    for body in bodies:
        await world.send(body, "a.test")
    async with running(world):
        await trio.sleep(3600)
    contents: dict[str, bytes] = {}
    for sent in world.sent:
        assert contents.setdefault(sent.txn_id, sent.content) == sent.content
    assert set(world.got("a.test")) == set(bodies)
    assert destinations.waiting(world.db.read, 1, destinations.get(world.db.read, "a.test").cursor)[0] == 0  # type: ignore[union-attr]  # it is there


async def test_several_that_are_refused_wait_for_one_that_passes(world: World) -> None:
    """All that there is was refused: it may be the destination. Another event that passes shows that it
    isn't."""
    world.answers["a.test"] = lambda sent: (
        refuse(400)(sent) if any(body.startswith("bad") for body in sent.bodies) else {"pdus": {}}
    )
    async with running(world) as parts:
        await world.send("first", "a.test")
        await trio.sleep(0.02)
        await world.send("bad 1", "a.test")
        await world.send("bad 2", "a.test")
        await trio.sleep(600)
        assert parts.failing() == ["a.test"]
        assert "2 PDUs" in parts.state_of("a.test")
        await world.send("good", "a.test")
        await trio.sleep(3600)
        assert world.got("a.test")[-1] == "good"
        assert "0 PDUs" in parts.state_of("a.test")


async def test_fleeting_edus_that_are_refused_are_given_up_at_once(world: World) -> None:
    world.answers["a.test"] = lambda sent: refuse(400)(sent) if sent.edus else {"pdus": {}}
    async with running(world) as parts:
        parts.queue_edu(["a.test"], "m.typing", {"n": 1}, key=("1",))
        parts.queue_edu(["a.test"], "m.typing", {"n": 2}, key=("2",))
        await trio.sleep(1)
        assert parts.failing() == []
        assert world.sent[-1].edus == []
