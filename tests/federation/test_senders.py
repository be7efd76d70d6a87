# SPDX-License-Identifier: Apache-2.0
"""The policy of sending, in virtual time: each sentence at the top of `senders.py`."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.federation import outgoing, senders
from minihs.federation.senders import Senders
from minihs.matrix.canonical import JsonObject
from minihs.matrix.federation_errors import RemoteProtocolError, RemoteRefused, Unreachable
from minihs.matrix.signatures import SigningKey
from minihs.runtime import Runtime
from minihs.store import destinations, events, ids, outbound, rooms
from minihs.store.database import Database, Tx
from minihs.store.events import Outcome
from minihs.store.outbound_edus import queue_edu
from minihs.testing.clock import VirtualClock, virtual_runtime
from tests.federation.test_keyring import make_event

DAY = 24 * 3600
KEY = SigningKey.generate(b"\1" * 32, "us")


@dataclass
class Sent:
    """A transaction that reached a destination (or was on its way there)."""

    at: float
    host: str
    txn_id: str
    content: bytes

    @property
    def bodies(self) -> list[str]:
        return [pdu["content"]["body"] for pdu in json.loads(self.content)["pdus"]]

    @property
    def edus(self) -> list[JsonObject]:
        return list(json.loads(self.content).get("edus", []))


@dataclass
class World:
    """Servers that answer as told, in the place of the federation client."""

    db: Database
    runtime: Runtime
    clock: VirtualClock
    sent: list[Sent] = field(default_factory=list)
    answers: dict[str, Callable[[Sent], Any]] = field(default_factory=dict)
    under_way: dict[str, int] = field(default_factory=dict)
    most_at_once: int = 0
    connected: set[str] = field(default_factory=set)
    delay: float = 0.05

    # -- the Client --

    async def send_transaction(self, host: str, txn_id: str, content: bytes, *, within: float) -> JsonObject:
        sent = Sent(trio.current_time(), host, txn_id, content)
        self.sent.append(sent)
        self.under_way[host] = self.under_way.get(host, 0) + 1
        assert self.under_way[host] == 1, "two transactions at once"
        self.most_at_once = max(self.most_at_once, sum(self.under_way.values()))
        try:
            await trio.sleep(self.delay)
            answer = self.answers.get(host, lambda _: {"pdus": {}})(sent)
            if isinstance(answer, float):
                await trio.sleep(min(answer, within))
                raise Unreachable(host, "did not answer in time")
            if isinstance(answer, Exception):
                raise answer
            return dict(answer)
        finally:
            self.under_way[host] -= 1

    def is_connected(self, host: str) -> bool:
        return host in self.connected

    # -- work --

    async def send(self, body: str, *hosts: str, size: int = 0) -> None:
        """A message for these servers."""
        event = make_event("us.test", KEY, self.clock.now_ms(), content={"body": body, "pad": "x" * size})

        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, event.room_id, "11")
            nid = events.insert(tx, room_nid, event, outcome=Outcome.ACCEPTED, received_ts=1)
            host_set = outbound.intern_host_set(tx, hosts)
            assert host_set is not None
            outbound.enqueue(tx, nid, host_set)

        await self.db.write(write)

    async def send_edu(self, host: str, edu_type: str, content: JsonObject) -> None:
        await self.db.write(lambda tx: queue_edu(tx, host, edu_type, content))

    async def share_a_room(self, host: str) -> None:
        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, "!shared:us.test", "11")
            rooms.set_resident(tx, room_nid, True)
            tx.execute(
                "INSERT OR REPLACE INTO room_hosts (room_nid, host_nid, joined) VALUES (?, ?, 1)",
                (room_nid, ids.intern_host(tx, host)),
            )

        await self.db.write(write)

    def to(self, host: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.host == host]

    def got(self, host: str) -> list[str]:
        """Bodies, in the order of sending, repetitions included."""
        return [body for sent in self.to(host) for body in sent.bodies]


@asynccontextmanager
async def world_in(folder: Path) -> AsyncIterator[World]:
    clock = VirtualClock()
    runtime = virtual_runtime(0, clock)
    async with Database.open(folder / "db", runtime, inline=True, synchronous="OFF") as db:
        yield World(db, runtime, clock)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as world:
        yield world


_starts = iter(range(1000))


@asynccontextmanager
async def running(world: World) -> AsyncIterator[Senders]:
    """Senders, from start to stop; each start has chance of its own."""
    runtime = virtual_runtime(next(_starts), world.clock)
    parts = Senders("us.test", world.db, runtime, world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.run)
        await trio.sleep(1)
        yield parts
        nursery.cancel_scope.cancel()
    world.db._callbacks.remove(parts._on_commit)


def refuse(status: int, **body: Any) -> Callable[[Sent], Exception]:
    return lambda sent: RemoteRefused(sent.host, status, {"errcode": "M_UNKNOWN", **body})


def gone(sent: Sent) -> Exception:
    return Unreachable(sent.host, "refused the connection")


# -- what is sent --


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
    assert max(len(sent.bodies) for sent in world.sent) == 50
    assert max(len(sent.edus) for sent in world.sent) == 100
    assert len(world.sent) == 3


async def test_what_comes_while_one_is_under_way_shares_the_next(world: World) -> None:
    world.delay = 5
    async with running(world):
        for number in range(20):
            await world.send(str(number), "a.test")
            await trio.sleep(0.1)
        await trio.sleep(20)
        assert [len(sent.bodies) for sent in world.sent] == [1, 19]


async def test_to_device_messages_go_before_device_lists_and_those_before_fleeting_ones(world: World) -> None:
    world.answers["a.test"] = gone
    async with running(world) as parts:
        await world.send_edu("a.test", "m.device_list_update", {"n": 1})
        await trio.sleep(0.2)
        await world.send_edu("a.test", "m.signing_key_update", {"n": 2})
        await world.send_edu("a.test", "m.direct_to_device", {"n": 3})
        parts.queue_edu(["a.test"], "m.receipt", {"n": 4}, key=("x",))
        await world.send("pdu", "a.test")
        del world.answers["a.test"]
        await trio.sleep(60)
    everything = [edu["content"]["n"] for sent in world.sent[1:] for edu in sent.edus]
    # The first transaction was made before the others came, and is sent again as it was.
    assert everything[-4:] == [1, 3, 2, 4]


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


# -- what is remembered --


async def test_what_was_delivered_is_not_sent_again_after_a_restart(world: World) -> None:
    async with running(world):
        await world.send("one", "a.test")
        await world.send_edu("a.test", "m.direct_to_device", {"n": 1})
        await trio.sleep(10)
    async with running(world):
        await trio.sleep(100)
    assert world.got("a.test") == ["one"]
    assert sum(len(sent.edus) for sent in world.sent) == 1


async def test_a_cursor_that_is_not_on_disk_yet_is_written_at_the_end(world: World) -> None:
    async with running(world):
        await world.send("one", "a.test")
        await trio.sleep(0.1)
    async with running(world):
        await trio.sleep(10)
    assert world.got("a.test") == ["one"]


async def test_what_waited_during_a_restart_is_sent_after_it(world: World) -> None:
    await world.send("one", "a.test")
    await world.send_edu("b.test", "m.direct_to_device", {"n": 1})
    async with running(world):
        await trio.sleep(10)
    assert world.got("a.test") == ["one"]
    assert len(world.to("b.test")) == 1


async def test_ids_are_not_used_again_after_a_restart(world: World) -> None:
    for _ in range(3):
        async with running(world):
            await world.send("x", "a.test")
            await trio.sleep(10)
    assert len({sent.txn_id for sent in world.sent}) == 3


async def test_after_a_restart_destinations_start_spread_in_time(world: World) -> None:
    hosts = [f"h{number}.test" for number in range(300)]
    await world.send("x", *hosts)
    async with running(world):
        await trio.sleep(120)
    times = sorted(sent.at for sent in world.sent)
    assert len(times) == 300
    assert times[-1] - times[0] > 20
    assert times[-1] - times[0] < 61


# -- failures --


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


async def test_a_parked_destination_keeps_nothing_in_memory_and_gets_a_new_transaction(world: World) -> None:
    world.answers["a.test"] = gone
    async with running(world) as parts:
        await world.send("one", "a.test")
        await trio.sleep(2 * DAY)
        assert parts._senders["a.test"].batch is None
        await world.send("two", "a.test")
        parts.queue_edu(["a.test"], "m.receipt", {}, key=("x",))
        assert parts._senders["a.test"].fleeting == {}
        del world.answers["a.test"]
        await trio.sleep(3 * DAY)
        assert world.sent[-1].bodies == ["one", "two"]
        assert world.sent[-1].txn_id != world.sent[0].txn_id
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
    assert world.sent[-1].bodies == ["one", "two"]


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


# -- poison --


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
    assert destinations.waiting(world.db.read, 1, destinations.get(world.db.read, "a.test").cursor)[0] == 0  # type: ignore[union-attr]


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


async def test_cancelling_at_any_moment_loses_and_repeats_nothing_that_matters(tmp_path: Path) -> None:
    """Stop at many moments, start again: in the end each event has arrived, in order but for repetitions."""
    for moment in range(0, 400, 45):
        folder = tmp_path / str(moment)
        folder.mkdir()
        async with world_in(folder) as world:
            bodies = [str(number) for number in range(60)]
            with trio.move_on_after(1 + moment / 1000):
                async with running(world):
                    for body in bodies:
                        await world.send(body, "a.test")
                        await trio.sleep(0.005)
                    await trio.sleep(10)
            sent = len(world.db.read.execute("SELECT 1 FROM outbound").fetchall())
            for parts in list(world.db._callbacks):
                world.db._callbacks.remove(parts)
            async with running(world):
                await trio.sleep(10)
            got = list(dict.fromkeys(world.got("a.test")))
            assert got == bodies[: len(got)]
            assert len(got) == sent
