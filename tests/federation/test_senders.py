# SPDX-License-Identifier: Apache-2.0
"""What is sent to other servers, in which order, and what is kept of it."""

from __future__ import annotations

import json

import pytest
import trio

from minihs.federation import outgoing
from minihs.store import destinations
from tests.federation.sending import DAY, World, gone, running


async def test_events_go_to_each_server_of_their_set_once(world: World) -> None:
    async with running(world):
        await world.send("one", "a.test", "b.test")
        await world.send("two", "b.test")
        await world.send("three", "a.test", "c.test", "us.test")
        await trio.sleep(10)
        assert world.got("a.test") == ["one", "three"]
        assert world.got("b.test") == ["one", "two"]
        assert world.got("c.test") == ["three"]
        assert world.to("us.test") == []


async def test_an_idle_destination_has_no_record(world: World) -> None:
    async with running(world) as parts:
        await world.send("one", "a.test", "b.test")
        await trio.sleep(10)
        assert repr(parts) == "<Senders: 0 destinations, 0 sending>"
        assert parts.state_of("a.test") == "a.test: idle, 0 PDUs and 0 EDUs wait"


async def test_transactions_hold_at_most_50_pdus_and_100_edus_in_order(world: World) -> None:
    bodies = [f"m{number}" for number in range(120)]
    for body in bodies:
        await world.send(body, "a.test")
    for number in range(250):
        await world.send_edu("a.test", "m.direct_to_device", {"n": number})
    async with running(world):
        await trio.sleep(10)
    assert world.got("a.test") == bodies
    assert [edu["content"]["n"] for sent in world.sent for edu in sent.edus] == list(range(250))
    # The first PDU by itself: it may have been under way before.
    assert [(len(sent.edus), len(sent.bodies)) for sent in world.sent] == [
        (100, 0),
        (100, 0),
        (50, 0),
        (0, 1),
        (0, 50),
        (0, 50),
        (0, 19),
    ]


async def test_what_comes_while_one_is_under_way_shares_the_next(world: World) -> None:
    world.delay = 5
    async with running(world):
        for number in range(20):
            await world.send(str(number), "a.test")
            await trio.sleep(0.1)
        await trio.sleep(20)
        assert [len(sent.bodies) for sent in world.sent] == [1, 19]


async def test_to_device_messages_go_before_device_lists_and_those_before_fleeting_ones(world: World) -> None:
    world.delay = 5
    async with running(world) as parts:
        await world.send("busy", "a.test")
        await trio.sleep(1)
        parts.queue_edu(["a.test"], "m.receipt", {"n": 4}, key=("x",))
        await world.send("pdu", "a.test")
        await world.send_edu("a.test", "m.device_list_update", {"n": 1})
        await world.send_edu("a.test", "m.signing_key_update", {"n": 2})
        await world.send_edu("a.test", "m.direct_to_device", {"n": 3})
        await trio.sleep(60)
    assert [([edu["content"]["n"] for edu in sent.edus], sent.bodies) for sent in world.sent] == [
        ([], ["busy"]),
        ([4], []),  # it is its turn
        ([3, 1, 2], ["pdu"]),
    ]


async def test_what_is_fleeting_and_what_is_not_take_turns(world: World) -> None:
    """Neither keeps the other back, and what may be lost never makes a transaction one that can't be made
    again."""
    world.delay = 1
    async with running(world) as parts:
        for number in range(20):
            await world.send(str(number), "a.test")
            parts.queue_edu(["a.test"], "m.typing", {"n": number}, key=("!r", "@u"))
            await trio.sleep(0.5)
        await trio.sleep(10)
    kinds = [bool(sent.bodies) for sent in world.sent]
    assert kinds == [number % 2 == 0 for number in range(len(kinds))]
    assert not any(sent.bodies and sent.edus for sent in world.sent)
    assert world.got("a.test") == [str(number) for number in range(20)]


async def test_a_transaction_ends_when_it_has_become_large(world: World) -> None:
    for number in range(50):
        await world.send(str(number), "a.test", size=60_000)
    async with running(world):
        await trio.sleep(10)
    assert world.got("a.test") == [str(number) for number in range(50)]
    assert all(len(sent.content) < outgoing.MAX_BYTES + 66_000 for sent in world.sent)


async def test_large_edus_do_not_keep_pdus_back_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "MAX_BYTES", 2_000)
    await world.send_edu("a.test", "m.direct_to_device", {"pad": "x" * 5_000})
    await world.send("one", "a.test")
    async with running(world):
        await trio.sleep(10)
    assert world.got("a.test") == ["one"]


async def test_a_later_fleeting_edu_takes_the_place_of_an_earlier_one(world: World) -> None:
    world.delay = 5
    async with running(world) as parts:
        await world.send("busy", "a.test")
        await trio.sleep(1)
        for number in range(10):
            parts.queue_edu(["a.test", "us.test"], "m.typing", {"n": number}, key=("!r", "@u"))
            parts.queue_edu(["a.test"], "m.receipt", {"n": number}, key=("!r", "@u"))
        await trio.sleep(20)
    [_, second] = world.sent
    assert [(edu["edu_type"], edu["content"]["n"]) for edu in second.edus] == [
        ("m.typing", 9),
        ("m.receipt", 9),
    ]


async def test_fleeting_edus_have_an_end(world: World) -> None:
    world.answers["a.test"] = gone
    async with running(world) as parts:
        await world.send("x", "a.test")
        await trio.sleep(0.5)
        for number in range(1000):
            parts.queue_edu(["a.test"], "m.receipt", {"n": number}, key=(str(number),))
        del world.answers["a.test"]
        await trio.sleep(60)
    numbers = [edu["content"]["n"] for sent in world.sent for edu in sent.edus]
    assert numbers == list(range(800, 1000))


async def test_old_typing_is_not_sent(world: World) -> None:
    world.answers["a.test"] = gone
    async with running(world) as parts:
        await world.send("x", "a.test")
        await trio.sleep(0.5)
        parts.queue_edu(["a.test"], "m.typing", {"n": 1}, key=("t",))
        parts.queue_edu(["a.test"], "m.receipt", {"n": 2}, key=("r",))
        await trio.sleep(60)
        del world.answers["a.test"]
        await trio.sleep(120)
    assert [edu["content"]["n"] for sent in world.sent for edu in sent.edus] == [2]


# -- tidying up --


async def test_what_everybody_has_is_cleared_away(world: World) -> None:
    world.answers["dead.test"] = gone
    async with running(world):
        for number in range(20):
            await world.send(str(number), "a.test", "b.test")
            await world.send(str(number), "a.test", f"h{number}.test")
        await world.send("kept", "a.test", "dead.test")
        await trio.sleep(2 * 3600 + 60)
        left = world.db.read.execute("SELECT COUNT(*) FROM outbound").fetchone()[0]
        assert left == 1
        assert world.db.read.execute("SELECT COUNT(*) FROM host_sets").fetchone()[0] == 1
        del world.answers["dead.test"]
        await trio.sleep(DAY)
        assert world.got("dead.test")[-1] == "kept"
        await world.send("again", "a.test", "b.test")
        await trio.sleep(10)
        assert world.got("b.test")[-1] == "again"


async def test_edus_for_a_server_that_is_gone_have_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "MAX_WAITING_EDUS", 10)
    world.answers["a.test"] = gone
    async with running(world):
        for number in range(30):
            await world.send_edu("a.test", "m.direct_to_device", {"n": number})
        await trio.sleep(3700)
    left = world.db.read.execute("SELECT edu FROM outbound_edus ORDER BY seq").fetchall()
    assert [json.loads(edu)["content"]["n"] for (edu,) in left] == list(range(20, 30))
