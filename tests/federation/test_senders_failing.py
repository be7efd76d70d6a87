# SPDX-License-Identifier: Apache-2.0
"""Destinations that fail: pauses, and who is held up by whom."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from minihs.federation import senders
from minihs.matrix.federation_errors import RemoteProtocolError
from minihs.store import destinations
from tests.federation.sending import DAY, Sent, World, gone, refuse, running

FAILURES = {
    "it refuses the connection": gone,
    "it does not answer": lambda sent: 1000.0,
    "401": refuse(401),
    "403": refuse(403),
    "404": refuse(404),
    "405": refuse(405),
    "429": refuse(429),
    "500": refuse(500),
    "502": refuse(502),
    "503": refuse(503),
    "it answers something else than JSON": lambda sent: RemoteProtocolError(sent.host, "not JSON"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_other_failures_are_the_destinations_and_the_same_bytes_are_sent_again(
    world: World, failure: str
) -> None:
    world.answers["a.test"] = FAILURES[failure]
    async with running(world):
        for number in range(3):
            await world.send(str(number), "a.test")
        await trio.sleep(300)
        attempts = world.to("a.test")
        assert len(attempts) >= 4
        assert {(sent.txn_id, sent.content) for sent in attempts} == {
            (attempts[0].txn_id, attempts[0].content)
        }
        await world.send("later", "a.test")
        del world.answers["a.test"]
        await trio.sleep(900)
    delivered = world.to("a.test")[len(attempts) :]
    assert delivered[0].txn_id == attempts[0].txn_id
    assert [body for sent in delivered for body in sent.bodies] == ["0", "1", "2", "later"]


def gaps(sent: Sequence[Sent]) -> list[float]:
    return [later.at - earlier.at for earlier, later in itertools.pairwise(sent)]


@pytest.mark.parametrize(("shared", "longest"), [(True, DAY), (False, 7 * DAY)])
async def test_pauses_double_up_to_a_day_or_a_week(world: World, shared: bool, longest: float) -> None:
    if shared:
        await world.share_a_room("a.test")
    world.answers["a.test"] = gone
    async with running(world) as parts:
        await world.send("x", "a.test")
        await trio.sleep(60 * DAY)
        pauses = gaps(world.sent)
        assert 1.5 <= pauses[0] <= 2.5
        for before, after in itertools.pairwise(pauses):
            assert after <= before * 3.1
        assert max(pauses) <= longest * 1.2 + 1
        assert max(pauses) >= longest * 0.8
        assert "parked" in parts.state_of("a.test")
        assert "1 PDUs" in parts.state_of("a.test")
        assert parts.failing() == ["a.test"]


async def test_pauses_have_chance_in_them(world: World) -> None:
    hosts = [f"h{number}.test" for number in range(50)]
    for host in hosts:
        world.answers[host] = gone
    async with running(world):
        await world.send("x", *hosts)
        await trio.sleep(5)
    second = [world.to(host)[1].at - world.to(host)[0].at for host in hosts]
    assert max(second) - min(second) > 0.4


async def test_a_parked_destination_keeps_nothing_in_memory_and_gets_the_same_transaction(
    world: World,
) -> None:
    world.answers["a.test"] = gone
    async with running(world) as parts:
        await world.send("one", "a.test")
        await trio.sleep(2 * DAY)
        assert parts._senders["a.test"].batch is None
        await world.send("two", "a.test")
        await world.send("three", "a.test")
        parts.queue_edu(["a.test"], "m.receipt", {}, key=("x",))
        assert parts._senders["a.test"].fleeting == {}
        del world.answers["a.test"]
        await trio.sleep(3 * DAY)
        assert [sent.bodies for sent in world.sent[-2:]] == [["one"], ["two", "three"]]
        assert {(sent.txn_id, sent.content) for sent in world.sent[:-1]} == {
            (world.sent[0].txn_id, world.sent[0].content)
        }
        assert parts.failing() == []


async def test_bytes_kept_for_failing_destinations_have_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "MAX_KEPT_BYTES", 100_000)
    hosts = [f"h{number}.test" for number in range(20)]
    for host in hosts:
        world.answers[host] = gone
    async with running(world) as parts:
        await world.send("x", *hosts, size=20_000)
        await trio.sleep(100)
        assert parts._kept_bytes() <= 120_000
        world.answers.clear()
        await trio.sleep(1000)
    assert all(world.got(host)[-1] == "x" for host in hosts)
    contents: dict[str, bytes] = {}
    for sent in world.sent:
        assert contents.setdefault(sent.txn_id, sent.content) == sent.content


async def test_a_request_by_the_destination_ends_its_pause(world: World) -> None:
    world.answers["a.test"] = gone
    async with running(world) as parts:
        await world.send("one", "a.test")
        await trio.sleep(10 * DAY)
        del world.answers["a.test"]
        before = trio.current_time()
        parts.heard_from("a.test")
        parts.heard_from("unknown.test")
        await trio.sleep(1)
        assert world.sent[-1].at - before < 0.5
        row = destinations.get(world.db.read, "a.test")
        assert row is not None
        assert (row.failing_since, row.retry_at, row.backoff_ms, row.last_error) == (None, None, 0, None)


async def test_a_pause_outlives_a_restart(world: World) -> None:
    world.answers["a.test"] = gone
    async with running(world):
        await world.send("one", "a.test")
        await trio.sleep(5 * DAY)
    attempts = len(world.sent)
    row = destinations.get(world.db.read, "a.test")
    assert row is not None
    assert row.failing_since is not None
    assert row.retry_at is not None
    async with running(world) as parts:
        await world.send("two", "a.test")
        await trio.sleep(600)
        assert len(world.sent) == attempts
        del world.answers["a.test"]
        parts.retry_now("a.test")
        await trio.sleep(10)
    assert [sent.bodies for sent in world.sent[-2:]] == [["one"], ["two"]]


async def test_a_destination_may_ask_for_a_longer_pause(world: World) -> None:
    world.answers["a.test"] = refuse(429, retry_after_ms=300_000)
    async with running(world):
        await world.send("one", "a.test")
        await trio.sleep(1000)
    assert 300 <= gaps(world.sent)[0] <= 301


@pytest.mark.parametrize("asked", [10**15, -5, True, "x", 1.5, None])
async def test_but_not_for_ever(world: World, asked: Any) -> None:
    world.answers["a.test"] = refuse(429, retry_after_ms=asked)
    async with running(world):
        await world.send("one", "a.test")
        await trio.sleep(3 * 3600)
    assert gaps(world.sent)[0] <= 3601


async def test_a_clock_that_was_set_back_does_not_stop_a_destination(world: World) -> None:
    world.answers["a.test"] = gone
    async with running(world):
        await world.send("one", "a.test")
        await trio.sleep(3600)
    world.clock.step(-400 * DAY * 1000)
    del world.answers["a.test"]
    async with running(world):
        await trio.sleep(8 * DAY)
    assert world.got("a.test")[-1] == "one"


async def test_a_dead_server_does_not_hold_up_the_others(world: World) -> None:
    dead = [f"dead{number}.test" for number in range(100)]
    for host in dead:
        world.answers[host] = lambda sent: 1000.0
    world.connected = {f"live{number}.test" for number in range(20)}
    async with running(world):
        await world.send("x", *dead, *world.connected)
        await trio.sleep(2)
        assert all(world.got(host) == ["x"] for host in world.connected)


async def test_servers_that_stay_dead_do_not_hold_up_a_new_one_nor_one_that_came_back(world: World) -> None:
    dead = [f"dead{number}.test" for number in range(200)]
    for host in dead:
        world.answers[host] = lambda sent: 1000.0
    async with running(world) as parts:
        await world.send("x", *dead)
        await trio.sleep(600)  # each has failed, and all of them are tried again and again
        assert world.got(dead[0]).count("x") >= 2
        world.most_at_once = 0
        await trio.sleep(60)
        assert world.most_at_once == senders.MAX_FAILING
        await world.send("y", "new.test")
        await trio.sleep(2)
        assert world.got("new.test") == ["y"]
        for host in (parts._failing.waiting[-1].host, await pausing(parts)):
            del world.answers[host]
            parts.heard_from(host)
            await trio.sleep(2)
            assert parts.state_of(host) == f"{host}: idle, 0 PDUs and 0 EDUs wait"


async def pausing(parts: senders.Senders) -> str:
    """A destination that waits to be tried again."""
    while True:
        for host in parts.failing():
            return host
        await trio.sleep(1)


async def test_so_many_new_connections_are_made_at_once_and_no_more(world: World) -> None:
    hosts = [f"h{number}.test" for number in range(200)]
    world.delay = 1
    async with running(world):
        await world.send("x", *hosts)
        await trio.sleep(100)
        assert world.most_at_once == senders.MAX_UNCONNECTED
        world.most_at_once = 0
        world.connected = set(hosts)
        await world.send("y", *hosts, *(f"i{number}.test" for number in range(100)))
        await trio.sleep(100)
        assert world.most_at_once == senders.MAX_ACTIVE


async def test_a_bug_in_one_sender_does_not_reach_the_others(world: World) -> None:
    def bug(sent: Sent) -> Any:
        return ZeroDivisionError("a bug")

    world.answers["a.test"] = bug
    async with running(world) as parts:
        await world.send("x", "a.test", "b.test")
        await trio.sleep(1.5)
        assert world.got("b.test") == ["x"]
        assert parts.failing() == ["a.test"]
        assert "internal error" in parts.state_of("a.test")
