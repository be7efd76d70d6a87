# SPDX-License-Identifier: Apache-2.0
"""Finding servers: every step of the spec's "Resolving server names"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from minihs.federation.network import Srv
from minihs.federation.well_known import MAX_REDIRECTS
from minihs.matrix.federation_errors import Unreachable
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from minihs.testing.internet import Internet
from tests.federation.kit import Caller

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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_to_other_hosts_and_ports(us: Caller, status: int) -> None:
    web_server(us.internet, "hs.test", Reply(status, headers=[("Location", "https://www.test:444/a?b=c")]))
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
