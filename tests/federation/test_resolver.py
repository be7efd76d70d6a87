# SPDX-License-Identifier: Apache-2.0
"""The real resolver, against a name server of the test's own on loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from minihs.federation import resolver as resolver_module
from minihs.federation.network import NoRecord, ResolverFailure, Srv, TcpNetwork
from minihs.federation.resolver import DnsResolver, HostsFile

RECORDS = {
    ("both.test.", "A"): ["both.test. 60 IN A 45.0.0.1", "both.test. 60 IN A 45.0.0.2"],
    ("both.test.", "AAAA"): ["both.test. 60 IN AAAA 2a00::1"],
    ("four.test.", "A"): ["four.test. 60 IN A 45.0.0.4"],
    ("four.test.", "AAAA"): [],
    ("half.test.", "A"): ["half.test. 60 IN A 45.0.0.5"],
    ("half.test.", "AAAA"): "SERVFAIL",
    ("alias.test.", "A"): ["alias.test. 60 IN CNAME four.test.", "four.test. 60 IN A 45.0.0.4"],
    ("alias.test.", "AAAA"): ["alias.test. 60 IN CNAME four.test."],
    ("ill.test.", "A"): "SERVFAIL",
    ("ill.test.", "AAAA"): "SERVFAIL",
    ("mute.test.", "A"): "SILENCE",
    ("mute.test.", "AAAA"): "SILENCE",
    ("_matrix-fed._tcp.both.test.", "SRV"): [
        "_matrix-fed._tcp.both.test. 777 IN SRV 10 5 8448 one.test.",
        "_matrix-fed._tcp.both.test. 777 IN SRV 0 0 443 TWO.test.",
    ],
    ("_matrix-fed._tcp.not-here.test.", "SRV"): ["_matrix-fed._tcp.not-here.test. 777 IN SRV 0 0 0 ."],
    ("_matrix-fed._tcp.four.test.", "SRV"): [],
    ("_matrix-fed._tcp.ill.test.", "SRV"): "SERVFAIL",
}


def answer(wire: bytes) -> bytes | None:
    query = dns.message.from_wire(wire)
    question = query.question[0]
    found = RECORDS.get((question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)))
    if found == "SILENCE":
        return None
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    if found is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif found == "SERVFAIL":
        response.set_rcode(dns.rcode.SERVFAIL)
    for line in found if isinstance(found, list) else ():
        name, ttl, kind, rdtype, rdata = line.split(" ", 4)
        response.answer.append(dns.rrset.from_text(name, int(ttl), kind, rdtype, rdata))
    return response.to_wire()


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DnsResolver]:
    monkeypatch.setattr(resolver_module, "LIFETIME", 1.0)
    socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await socket.bind(("127.0.0.1", 0))

    async def serve() -> None:
        while True:
            data, peer = await socket.recvfrom(4096)
            reply = answer(data)
            if reply is not None:
                await socket.sendto(reply, peer)

    client = dns.asyncresolver.Resolver(configure=False)
    client.nameservers = ["127.0.0.1"]
    client.port = socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield DnsResolver(HostsFile(Path("/nonexistent")), client)
        nursery.cancel_scope.cancel()
    socket.close()


async def test_addresses_of_both_families_are_found(resolver: DnsResolver) -> None:
    assert sorted(await resolver.addresses("both.test")) == ["2a00::1", "45.0.0.1", "45.0.0.2"]
    assert await resolver.addresses("Both.TEST.") == await resolver.addresses("both.test")


async def test_one_family_is_enough_even_if_the_other_fails(resolver: DnsResolver) -> None:
    assert await resolver.addresses("four.test") == ["45.0.0.4"]
    assert await resolver.addresses("half.test") == ["45.0.0.5"]


async def test_aliases_are_followed(resolver: DnsResolver) -> None:
    assert await resolver.addresses("alias.test") == ["45.0.0.4"]


@pytest.mark.parametrize("name", ["ill.test", "mute.test", "x" * 64 + ".test", "a..b"])
async def test_no_answer_is_a_failure_and_not_the_absence_of_a_record(
    resolver: DnsResolver, name: str
) -> None:
    with pytest.raises(ResolverFailure):
        await resolver.addresses(name)


async def test_a_name_that_does_not_exist_has_no_record(resolver: DnsResolver) -> None:
    with pytest.raises(NoRecord):
        await resolver.addresses("nothing.test")


async def test_srv_records_are_found_with_their_time_to_live(resolver: DnsResolver) -> None:
    found = await resolver.srv("_matrix-fed._tcp.both.test")
    assert set(found.records) == {Srv(10, 5, 8448, "one.test"), Srv(0, 0, 443, "TWO.test")}
    assert found.ttl == 777
    assert (await resolver.srv("_matrix-fed._tcp.not-here.test")).records == (Srv(0, 0, 0, ""),)


async def test_srv_records_that_are_not_there_are_told_from_a_name_server_that_is_ill(
    resolver: DnsResolver,
) -> None:
    for name in ("nothing.test", "four.test"):
        with pytest.raises(NoRecord):
            await resolver.srv("_matrix-fed._tcp." + name)
    with pytest.raises(ResolverFailure):
        await resolver.srv("_matrix-fed._tcp.ill.test")


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.", "hs1.localhost"])
async def test_localhost_is_this_machine_whatever_dns_says(resolver: DnsResolver, name: str) -> None:
    assert await resolver.addresses(name) == ["127.0.0.1", "::1"]


async def test_the_hosts_file_comes_first_and_is_read_again_when_it_changes(
    resolver: DnsResolver, tmp_path: Path
) -> None:
    path = tmp_path / "hosts"
    path.write_text("# comment\n127.0.1.1 four.test mine # ours\n\n::1 Mine\nbroken\n")
    resolver._hosts = HostsFile(path)
    assert await resolver.addresses("four.test") == ["127.0.1.1"]
    assert await resolver.addresses("MINE") == ["127.0.1.1", "::1"]
    assert sorted(await resolver.addresses("both.test")) == ["2a00::1", "45.0.0.1", "45.0.0.2"]
    path.write_text("45.9.9.9 four.test\n")
    os.utime(path, ns=(1, 1))
    assert await resolver.addresses("four.test") == ["45.9.9.9"]
    path.unlink()
    assert await resolver.addresses("four.test") == ["45.0.0.4"]


async def test_the_real_network_connects_and_refuses() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    stream = await TcpNetwork().connect("127.0.0.1", port)
    await stream.aclose()
    await listener.aclose()
    with pytest.raises(OSError):
        await TcpNetwork().connect("127.0.0.1", port)


async def test_of_the_addresses_and_records_of_a_name_some_are_taken(
    resolver: DnsResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "MAX_ADDRESSES", 1)
    monkeypatch.setattr(resolver_module, "MAX_SRV_RECORDS", 1)
    found = await resolver.addresses("both.test")
    assert len([address for address in found if ":" not in address]) == 1
    assert len((await resolver.srv("_matrix-fed._tcp.both.test")).records) == 1
