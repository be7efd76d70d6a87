# SPDX-License-Identifier: Apache-2.0
"""Finding servers: every step of the spec's "Resolving server names", and what is remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.federation.discovery import FAILURE_TTL, NEGATIVE_TTL
from minihs.federation.network import Srv
from minihs.federation.srv import in_order
from minihs.federation.well_known import DEFAULT_TTL, MAX_REDIRECTS, MAX_TTL, MIN_TTL, time_to_live
from minihs.matrix.federation_errors import RemoteRefused, Unreachable
from minihs.store import discovery_cache
from minihs.store.database import Tx
from minihs.testing.clock import SeededRandom
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from minihs.testing.internet import Internet
from tests.federation.kit import Caller, caller

WELL_KNOWN = "/.well-known/matrix/server"


@dataclass(frozen=True)
class Case:
    """A server name, what DNS and .well-known hold, and where we must end up."""

    step: str
    name: str
    verify: str
    host: str
    places: tuple[tuple[str, int], ...]
    well_known: str | None = None
    srv: dict[str, tuple[Srv, ...]] = field(default_factory=dict)


CASES = [
    Case("1", "45.9.9.9", "45.9.9.9", "45.9.9.9", (("45.9.9.9", 8448),)),
    Case("1", "45.9.9.9:1234", "45.9.9.9", "45.9.9.9:1234", (("45.9.9.9", 1234),)),
    Case("1", "[2a00::1]", "2a00::1", "[2a00::1]", (("2a00::1", 8448),)),
    Case("1", "[2a00::1]:99", "2a00::1", "[2a00::1]:99", (("2a00::1", 99),)),
    Case("2", "hs.test:1234", "hs.test", "hs.test:1234", (("hs.test", 1234),), "ignored.test"),
    Case("3.1", "hs.test", "45.9.9.9", "45.9.9.9", (("45.9.9.9", 8448),), "45.9.9.9"),
    Case("3.1", "hs.test", "45.9.9.9", "45.9.9.9:99", (("45.9.9.9", 99),), "45.9.9.9:99"),
    Case("3.1", "hs.test", "2a00::1", "[2a00::1]:99", (("2a00::1", 99),), "[2a00::1]:99"),
    Case("3.2", "hs.test", "real.test", "real.test:443", (("real.test", 443),), "real.test:443"),
    Case(
        "3.3",
        "hs.test",
        "real.test",
        "real.test",
        (("srv.test", 99),),
        "real.test",
        {
            "_matrix-fed._tcp.real.test": (Srv(0, 0, 99, "srv.test"),),
            "_matrix._tcp.real.test": (Srv(0, 0, 98, "old.test"),),
            "_matrix-fed._tcp.hs.test": (Srv(0, 0, 97, "not-me.test"),),
        },
    ),
    Case(
        "3.4",
        "hs.test",
        "real.test",
        "real.test",
        (("old.test", 98),),
        "real.test",
        {"_matrix._tcp.real.test": (Srv(0, 0, 98, "old.test"),)},
    ),
    Case("3.5", "hs.test", "real.test", "real.test", (("real.test", 8448),), "real.test"),
    Case(
        "4",
        "hs.test",
        "hs.test",
        "hs.test",
        (("srv.test", 99),),
        None,
        {
            "_matrix-fed._tcp.hs.test": (Srv(0, 0, 99, "srv.test"),),
            "_matrix._tcp.hs.test": (Srv(0, 0, 98, "old.test"),),
        },
    ),
    Case(
        "5",
        "hs.test",
        "hs.test",
        "hs.test",
        (("old.test", 98),),
        None,
        {"_matrix._tcp.hs.test": (Srv(0, 0, 98, "old.test"),)},
    ),
    Case("6", "hs.test", "hs.test", "hs.test", (("hs.test", 8448),)),
    Case(
        "4",
        "hs.test",
        "hs.test",
        "hs.test",
        (("a.test", 1), ("b.test", 2), ("c.test", 3)),
        None,
        {
            "_matrix-fed._tcp.hs.test": (
                Srv(20, 0, 3, "c.test"),
                Srv(0, 100, 1, "a.test"),
                Srv(10, 5, 2, "b.test"),
            )
        },
    ),
]


def web_server(internet: Internet, name: str, script: Any) -> ScriptedPeer:
    """A host with something at .well-known."""
    peer = ScriptedPeer(internet, name, port=443)
    peer.on("GET", WELL_KNOWN, script)
    return peer


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"step {case.step} {case.name} {case.well_known}")
async def test_each_step_of_the_spec(us: Caller, case: Case) -> None:
    if case.well_known is not None:
        web_server(us.internet, "hs.test", {"m.server": case.well_known})
    for name, records in case.srv.items():
        us.internet.dns.add_srv(name, *records)
    route = await us.discovery.find(case.name)
    assert route.step == case.step
    assert route.verify_name == case.verify
    assert route.host_header == case.host
    assert tuple((target.host, target.port) for target in route.targets(us.runtime)) == case.places


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"step {case.step} {case.name} {case.well_known}")
async def test_each_step_end_to_end_with_its_certificate_and_host_header(us: Caller, case: Case) -> None:
    """The server found answers only with the certificate that the step demands."""
    if case.well_known is not None:
        web_server(us.internet, "hs.test", {"m.server": case.well_known})
    for name, records in case.srv.items():
        us.internet.dns.add_srv(name, *records)
    place, port = case.places[0]
    address = place if place[0].isdigit() else None
    host = us.internet.host(place, address=address)
    peer = ScriptedPeer(us.internet, "unused.test")
    peer.on("GET", "/_matrix/federation/v1/version", {"server": {}})
    host.listen(port, peer.serve, tls=[case.verify])
    assert await us.client.version(case.name) == {"server": {}}
    assert [request.headers["host"] for request in peer.requests] == [case.host]

    for wrong in {"hs.test", "real.test", "srv.test", "old.test", "45.9.9.9"} - {case.verify}:
        await us.pools.forget(case.name)
        us.client.heard_from(case.name)
        host.listen(port, peer.serve, tls=[wrong])
        with pytest.raises(Unreachable, match="certificate refused"):
            await us.client.version(case.name)
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "name",
    ["", "has space.test", "a..b", "-x.test", "1.2.3", "hs.test:0x50", "x" * 64 + ".test", "a/b", "é.test"],
)
async def test_names_that_cannot_be_looked_up_are_unreachable(us: Caller, name: str) -> None:
    with pytest.raises(Unreachable):
        await us.discovery.find(name)
    assert us.internet.dns.queries == []


BAD_ANSWERS = [
    Reply(404),
    Reply(status=200, body=b"<html>not json</html>"),
    Reply(json=["m.server"]),
    Reply(json={}),
    Reply(json={"m.server": 8448}),
    Reply(json={"m.server": "https://real.test"}),
    Reply(json={"m.server": "real.test:port"}),
    Reply(json={"m.server": "real.test/path"}),
    Reply(json={"m.server": ""}),
    Reply(json={"m.server": None}),
    Reply(302, headers=[("Location", "http://hs.test/plain")]),
    Reply(302, headers=[("Location", "https://user@hs.test/")]),
    Reply(302, headers=[("Location", "ftp://hs.test/")]),
    Reply(302, headers=[("Location", "https://hs.test:99999/")]),
    Reply(302, headers=[("Location", "https://[broken/")]),
    Reply(302),
    Reply(body=b'{"m.server": "real.test", "pad": "' + b"x" * 60_000 + b'"}'),
    Reply(body=b"[" * 40_000),
    Reply(raw=b"SSH-2.0-OpenSSH_9.9\r\n"),
]


@pytest.mark.parametrize("answer", BAD_ANSWERS, ids=lambda reply: repr(reply)[:60])
async def test_a_useless_well_known_means_there_is_none(us: Caller, answer: Reply) -> None:
    web_server(us.internet, "hs.test", answer)
    route = await us.discovery.find("hs.test")
    assert route.step == "6"
    assert route.verify_name == "hs.test"


async def test_an_endless_well_known_is_cut_off(us: Caller) -> None:
    peer = web_server(us.internet, "hs.test", Reply(endless=True, body=b" " * 1000))
    assert (await us.discovery.find("hs.test")).step == "6"
    assert us.internet.link(us.host, peer.host).bytes < 600_000


async def test_redirects_are_followed_to_other_hosts_and_ports(us: Caller) -> None:
    web_server(us.internet, "hs.test", Reply(301, headers=[("Location", "https://www.test:444/a?b=c")]))
    last = ScriptedPeer(us.internet, "www.test", port=444)
    last.on("GET", "/a", {"m.server": "real.test:1"})
    route = await us.discovery.find("hs.test")
    assert route.step == "3.2"
    assert [(request.uri, request.headers["host"]) for request in last.requests] == [
        ("/a?b=c", "www.test:444")
    ]


@pytest.mark.parametrize(("hops", "step"), [(MAX_REDIRECTS, "3.2"), (MAX_REDIRECTS + 1, "6")])
async def test_redirects_have_an_end(us: Caller, hops: int, step: str) -> None:
    def script(received: Received) -> Reply:
        number = int(received.uri.partition("?")[2] or 0)
        if number == hops:
            return Reply(json={"m.server": "real.test:1"})
        return Reply(302, headers=[("Location", f"{WELL_KNOWN}?{number + 1}")])

    web_server(us.internet, "hs.test", script)
    assert (await us.discovery.find("hs.test")).step == step


async def test_a_redirect_into_a_private_network_is_not_followed(us: Caller) -> None:
    inside = us.internet.host("inside.test", address="10.0.0.1")
    peer = ScriptedPeer(us.internet, "inside.test", port=443)
    peer.on("GET", "/", {"m.server": "real.test:1"})
    web_server(us.internet, "hs.test", Reply(302, headers=[("Location", "https://inside.test/")]))
    assert (await us.discovery.find("hs.test")).step == "6"
    assert us.internet.link(us.host, inside).connections == 0


async def test_a_delegated_name_does_not_get_another_well_known(us: Caller) -> None:
    web_server(us.internet, "hs.test", {"m.server": "real.test"})
    second = web_server(us.internet, "real.test", {"m.server": "third.test:1"})
    assert (await us.discovery.find("hs.test")).step == "3.5"
    assert second.requests == []


async def test_a_service_that_srv_says_is_not_offered_is_unreachable(us: Caller) -> None:
    us.internet.dns.add_srv("_matrix-fed._tcp.hs.test", Srv(0, 0, 0, ""))
    us.internet.dns.add_srv("_matrix._tcp.hs.test", Srv(0, 0, 1, "hs.test"))
    with pytest.raises(Unreachable):
        await us.client.version("hs.test")


# -- what is remembered --


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
    assert gaps == sorted(gaps) or max(gaps) >= NEGATIVE_TTL * 0.9
    assert max(gaps) <= NEGATIVE_TTL + 30


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
