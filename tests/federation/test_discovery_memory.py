# SPDX-License-Identifier: Apache-2.0
"""Finding servers: what is remembered of it, and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.federation.discovery import FAILURE_TTL, MAX_STALE_MS, NEGATIVE_TTL
from minihs.federation.network import Srv
from minihs.federation.srv import in_order
from minihs.federation.well_known import DEFAULT_TTL, MAX_TTL, MIN_TTL, time_to_live
from minihs.matrix.federation_errors import RemoteRefused, Unreachable
from minihs.store import discovery_cache
from minihs.store.database import Tx
from minihs.testing.clock import SeededRandom
from minihs.testing.hostile import Reply, ScriptedPeer
from minihs.testing.internet import Internet
from tests.federation.kit import Caller, caller

WELL_KNOWN = "/.well-known/matrix/server"


def web_server(internet: Internet, name: str, script: Any) -> ScriptedPeer:
    """A host with something at .well-known."""
    peer = ScriptedPeer(internet, name, port=443)
    peer.on("GET", WELL_KNOWN, script)
    return peer


async def test_answers_are_kept_for_their_time_and_over_a_restart(internet: Internet, tmp_path: Path) -> None:
    peer = web_server(
        internet,
        "hs.test",
        Reply(json={"m.server": "real.test"}, headers=[("Cache-Control", "max-age=7200")]),
    )
    internet.dns.add_srv("_matrix-fed._tcp.real.test", Srv(0, 0, 1, "a.test"), ttl=86_000)
    async with caller(internet, tmp_path) as us:
        assert (await us.discovery.find("hs.test")).step == "3.3"
        assert (await us.discovery.find("HS.test")).step == "3.3"
    async with caller(internet, tmp_path) as us:
        us.clock.step(6400 * 1000)
        assert (await us.discovery.find("hs.test")).step == "3.3"
        assert len(peer.requests) == 1
        assert internet.dns.queries.count("_matrix-fed._tcp.real.test") == 1
        us.clock.step(900 * 1000)
        await us.discovery.find("hs.test")
        assert len(peer.requests) == 2


async def test_that_there_is_nothing_is_kept_too(us: Caller) -> None:
    peer = web_server(us.internet, "hs.test", Reply(404))
    await us.discovery.find("hs.test")
    await us.discovery.find("hs.test")
    assert len(peer.requests) == 1
    assert us.internet.dns.queries.count("_matrix._tcp.hs.test") == 1
    await trio.sleep(NEGATIVE_TTL + 1)
    await us.discovery.find("hs.test")
    assert len(peer.requests) == 2


async def test_look_ups_of_one_name_at_once_are_one_look_up(us: Caller) -> None:
    peer = web_server(us.internet, "hs.test", Reply(json={"m.server": "real.test"}, delay=1))
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(us.discovery.find, "hs.test")
    assert len(peer.requests) == 1
    assert us.internet.dns.queries.count("_matrix-fed._tcp.real.test") == 1


def breakages(peer: ScriptedPeer) -> dict[str, Callable[[], object]]:
    return {
        "the web server is down": peer.host.down,
        "it answers 503": lambda: peer.on("GET", WELL_KNOWN, Reply(503)),
        "it hangs": lambda: peer.on("GET", WELL_KNOWN, Reply(delay=1000)),
        "its name server is ill": lambda: peer.host.internet.dns.failing.add("hs.test"),
        "its certificate is wrong": lambda: peer.host.listen(443, peer.serve, tls=["other.test"]),
    }


@pytest.mark.parametrize(
    "breakage",
    [
        "the web server is down",
        "it answers 503",
        "it hangs",
        "its name server is ill",
        "its certificate is wrong",
    ],
)
async def test_when_nobody_answers_the_last_answer_stands_for_two_days(us: Caller, breakage: str) -> None:
    peer = web_server(us.internet, "hs.test", {"m.server": "real.test:1"})
    assert (await us.discovery.find("hs.test")).step == "3.2"
    breakages(peer)[breakage]()
    await trio.sleep(DEFAULT_TTL + 60)
    assert (await us.discovery.find("hs.test")).step == "3.2"
    await trio.sleep(MAX_TTL - DEFAULT_TTL)
    us.internet.dns.add_srv("_matrix-fed._tcp.hs.test", Srv(0, 0, 1, "a.test"))
    assert (await us.discovery.find("hs.test")).step == "4"


async def test_a_failing_srv_look_up_is_not_taken_for_no_record(us: Caller) -> None:
    us.internet.host("hs.test")
    us.internet.dns.failing.add("_matrix-fed._tcp.hs.test")
    with pytest.raises(Unreachable):
        await us.discovery.find("hs.test")
    us.internet.dns.failing.clear()
    await trio.sleep(FAILURE_TTL + 1)
    assert (await us.discovery.find("hs.test")).step == "6"


async def test_when_dns_fails_the_last_srv_answer_stands(us: Caller) -> None:
    us.internet.dns.add_srv("_matrix-fed._tcp.hs.test", Srv(0, 0, 1, "a.test"), ttl=60)
    assert (await us.discovery.find("hs.test")).step == "4"
    us.internet.dns.failing.add("_matrix-fed._tcp.hs.test")
    await trio.sleep(3600)
    assert (await us.discovery.find("hs.test")).step == "4"


async def test_failures_are_asked_again_ever_more_rarely(us: Caller) -> None:
    peer = web_server(us.internet, "hs.test", Reply(503))
    times: list[float] = []
    for _ in range(1000):
        await us.discovery.find("hs.test")
        if len(peer.requests) > len(times):
            times.append(trio.current_time())
        await trio.sleep(30)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] <= 90
    assert gaps[:5] == sorted(gaps[:5])
    assert NEGATIVE_TTL * 0.9 <= max(gaps) <= NEGATIVE_TTL + 30


def test_the_times_are_those_of_the_specification() -> None:
    """By default a day, two at most, and no more than an hour for what is not there or fails."""
    assert (DEFAULT_TTL, MAX_TTL, MAX_STALE_MS) == (24 * 3600, 48 * 3600, 48 * 3600 * 1000)
    assert NEGATIVE_TTL <= 3600


async def test_a_delegation_that_is_taken_away_is_gone_when_its_time_is_over(us: Caller) -> None:
    """The web server answers, and has none any more: that is another thing than not to answer."""
    peer = web_server(us.internet, "hs.test", {"m.server": "real.test:1"})
    assert (await us.discovery.find("hs.test")).step == "3.2"
    peer.on("GET", WELL_KNOWN, Reply(404))
    await trio.sleep(DEFAULT_TTL + 60)
    assert (await us.discovery.find("hs.test")).step == "6"


async def test_what_was_learnt_before_the_clock_was_set_back_is_asked_again(us: Caller) -> None:
    peer = web_server(us.internet, "hs.test", {"m.server": "old.test:1"})
    await us.discovery.find("hs.test")
    us.clock.step(-3 * MAX_STALE_MS)
    peer.on("GET", WELL_KNOWN, {"m.server": "new.test:1"})
    assert (await us.discovery.find("hs.test")).host_header == "new.test:1"


async def test_a_server_that_moved_is_found_again(us: Caller) -> None:
    """The way we know stops working before its time is over."""
    web = web_server(us.internet, "hs.test", {"m.server": "old.test:1"})
    old = ScriptedPeer(us.internet, "old.test", port=1)
    new = ScriptedPeer(us.internet, "new.test", port=1)
    for peer in (old, new):
        peer.on("GET", "/_matrix/federation/v1/version", {"server": {"name": peer.name}})
    assert (await us.client.version("hs.test"))["server"]["name"] == "old.test"
    web.on("GET", WELL_KNOWN, {"m.server": "new.test:1"})
    await trio.sleep(600)
    assert (await us.client.version("hs.test"))["server"]["name"] == "old.test"
    old.host.down()
    assert (await us.client.version("hs.test"))["server"]["name"] == "new.test"


async def test_the_cache_has_an_end(us: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_cache, "MAX_ROWS", 10)
    now = us.clock.now_ms()
    entries = [discovery_cache.Cached(None, True, now, now + number, 0) for number in range(30)]

    def fill(tx: Tx) -> None:
        for number, each in enumerate(entries):
            discovery_cache.put(tx, "srv", f"{number}.test", each)
        discovery_cache.prune(tx, now)

    await us.db.write(fill)
    left = us.db.read.execute("SELECT name FROM discovery_cache").fetchall()
    assert sorted(int(name.split(".")[0]) for (name,) in left) == list(range(20, 30))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, DEFAULT_TTL),
        ({"cache-control": "max-age=7200"}, 7200),
        ({"cache-control": 'public, MAX-AGE="7200"'}, 7200),
        ({"cache-control": "max-age=1"}, MIN_TTL),
        ({"cache-control": "max-age=99999999"}, MAX_TTL),
        ({"cache-control": "max-age=9999999999999999"}, MIN_TTL),
        ({"cache-control": "max-age=-5"}, MIN_TTL),
        ({"cache-control": "no-store"}, MIN_TTL),
        ({"cache-control": "no-cache, max-age=7200"}, MIN_TTL),
        ({"expires": "Thu, 01 Jan 1970 02:00:00 GMT"}, 7200),
        ({"expires": "0"}, MIN_TTL),
        ({"expires": "Thu, 01 Jan 1970 02:00:00 GMT", "cache-control": "max-age=600"}, 600),
        ({"cache-control": "private"}, DEFAULT_TTL),
    ],
)
def test_how_long_a_well_known_is_kept(headers: dict[str, str], seconds: int) -> None:
    assert time_to_live(headers, now_ms=0) == seconds


def test_srv_records_are_tried_by_priority_and_chosen_by_weight() -> None:
    records = [Srv(1, 0, 1, "zero"), Srv(1, 30, 1, "some"), Srv(1, 70, 1, "most"), Srv(0, 0, 1, "first")]
    random = SeededRandom(1)
    seconds: Counter[str] = Counter()
    for _ in range(2000):
        ordered = [record.target for record in in_order(records, random)]
        assert sorted(ordered) == ["first", "most", "some", "zero"]
        assert ordered[0] == "first"
        seconds[ordered[1]] += 1
    assert 1300 < seconds["most"] < 1500
    assert 500 < seconds["some"] < 700
    assert seconds["zero"] < 20


def test_srv_records_without_weight_are_all_tried() -> None:
    records = [Srv(0, 0, port, "x") for port in range(5)]
    assert {record.port for record in in_order(records, SeededRandom(1))} == set(range(5))
    assert in_order([], SeededRandom(1)) == []


async def test_refusals_are_no_reason_to_look_elsewhere(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "hs.test")
    with pytest.raises(RemoteRefused):
        await us.client.version("hs.test")
    await trio.sleep(600)
    with pytest.raises(RemoteRefused):
        await us.client.version("hs.test")
    assert len(peer.requests) == 2
