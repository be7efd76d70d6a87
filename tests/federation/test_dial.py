# SPDX-License-Identifier: Apache-2.0
"""Connecting: which addresses are tried, in what order, and with which certificate."""

from __future__ import annotations

import errno
import ssl
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpcore2
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from minihs.federation import http
from minihs.federation.addresses import AddressPolicy
from minihs.federation.connections import Connections
from minihs.federation.dial import (
    ATTEMPT_DELAY,
    CONNECT_TIMEOUT,
    DialError,
    Dialler,
    ForbiddenAddress,
    NameNotFound,
    Target,
    tls_context,
)
from minihs.federation.network import SrvAnswer
from minihs.testing.hostile import Reply, ScriptedPeer
from minihs.testing.internet import Internet, SocketAddress
from tests.federation.kit import Caller


async def hang_up(stream: trio.abc.Stream, peer: SocketAddress, local: SocketAddress) -> None:
    await stream.aclose()


class Wire(trio.abc.Stream):
    """A connection that does nothing but know its address."""

    def __init__(self, address: str, open_wires: list[Wire]) -> None:
        self.address = address
        self._open = open_wires
        self._open.append(self)

    async def aclose(self) -> None:
        if self in self._open:
            self._open.remove(self)
        await trio.lowlevel.checkpoint()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...
    async def wait_send_all_might_not_block(self) -> None: ...
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return b""


class FakeWorld:
    """Addresses that answer after a time, refuse after a time (negative), or never."""

    def __init__(self, times: dict[str, float]) -> None:
        self.times = times
        self.tried: list[tuple[str, float]] = []
        self.open: list[Wire] = []

    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        self.tried.append((address, trio.current_time()))
        wait = self.times[address]
        await trio.sleep(abs(wait))
        if wait < 0:
            raise OSError(errno.ECONNREFUSED, "Connection refused")
        return Wire(address, self.open)

    async def addresses(self, host: str) -> list[str]:
        return list(self.times)

    async def srv(self, name: str) -> SrvAnswer:
        raise NotImplementedError

    def dialler(self, *allow: str) -> Dialler:
        return Dialler(self, self, AddressPolicy(allow), ssl.create_default_context())


async def test_a_name_without_addresses_is_not_found(us: Caller) -> None:
    with pytest.raises(NameNotFound):
        await us.dialler.connect(Target("nowhere.test", 8448))


async def test_a_failing_resolver_is_not_the_same_as_no_address(us: Caller) -> None:
    us.internet.dns.failing.add("ill.test")
    with pytest.raises(DialError) as caught:
        await us.dialler.connect(Target("ill.test", 8448))
    assert not isinstance(caught.value, NameNotFound)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
async def test_private_addresses_are_refused_whether_named_or_literal(us: Caller, address: str) -> None:
    inside = us.internet.host("inside.test", address=address)
    inside.listen(8448, hang_up)
    for host in ("inside.test", address):
        with pytest.raises(ForbiddenAddress):
            await us.dialler.connect(Target(host, 8448))
    assert us.internet.link(us.host, inside).connections == 0


async def test_of_a_mixed_name_only_the_public_address_is_tried() -> None:
    world = FakeWorld({"127.0.0.1": 0, "1.1.1.1": 0.1, "10.0.0.1": 0})
    stream = await world.dialler().connect(Target("mixed.test", 1))
    assert isinstance(stream, Wire)
    assert stream.address == "1.1.1.1"
    assert [address for address, _ in world.tried] == ["1.1.1.1"]


async def test_an_allowed_network_is_dialled() -> None:
    world = FakeWorld({"10.0.0.1": 0})
    stream = await world.dialler("10.0.0.0/8").connect(Target("10.0.0.1", 1))
    assert isinstance(stream, Wire)


async def test_a_silent_address_holds_up_the_next_for_a_moment_only() -> None:
    world = FakeWorld({"2606::1": 1000, "2606::2": 1000, "1.1.1.1": 0.1})
    start = trio.current_time()
    stream = await world.dialler().connect(Target("eyeballs.test", 1))
    assert isinstance(stream, Wire)
    assert stream.address == "1.1.1.1"
    # The families alternate, so the IPv4 address is second.
    assert [(address, at - start) for address, at in world.tried] == [
        ("2606::1", 0),
        ("1.1.1.1", pytest.approx(ATTEMPT_DELAY)),
    ]


async def test_a_refusal_moves_on_at_once() -> None:
    world = FakeWorld({"2606::1": -0.001, "1.1.1.1": 0})
    start = trio.current_time()
    await world.dialler().connect(Target("eyeballs.test", 1))
    assert trio.current_time() - start < ATTEMPT_DELAY


async def test_when_two_attempts_succeed_one_connection_is_kept() -> None:
    world = FakeWorld({"2606::1": ATTEMPT_DELAY + 0.1, "1.1.1.1": 0.1})
    stream = await world.dialler().connect(Target("twins.test", 1))
    await trio.sleep(10)
    assert world.open == [stream]


async def test_a_cancelled_dial_leaves_no_connection_behind() -> None:
    for moment in (0.0, 0.05, 0.1, ATTEMPT_DELAY, ATTEMPT_DELAY + 0.1):
        world = FakeWorld({"2606::1": ATTEMPT_DELAY + 0.1, "1.1.1.1": 0.1})
        kept: list[trio.abc.Stream] = []
        with trio.move_on_after(moment):
            kept.append(await world.dialler().connect(Target("late.test", 1)))
        assert world.open == kept


async def test_all_refusing_is_an_error_that_says_so() -> None:
    world = FakeWorld({"1.1.1.1": -0.1, "1.1.1.2": -0.1})
    with pytest.raises(DialError, match="Connection refused"):
        await world.dialler().connect(Target("closed.test", 1))


async def test_a_black_hole_ends_at_the_time_out() -> None:
    world = FakeWorld({"1.1.1.1": 10_000})
    start = trio.current_time()
    with pytest.raises(DialError, match="in time"):
        await world.dialler().connect(Target("hole.test", 1))
    assert trio.current_time() - start == pytest.approx(CONNECT_TIMEOUT)


async def test_of_several_targets_the_first_that_answers_is_taken(us: Caller) -> None:
    good = us.internet.host("good.test")
    good.listen(5, hang_up, tls=False)
    stream = await us.dialler.connect_any(
        [Target("nowhere.test", 1), Target("good.test", 4), Target("good.test", 5)]
    )
    await stream.aclose()
    with pytest.raises(DialError):
        await us.dialler.connect_any([])


# -- certificates --


async def test_the_certificate_must_be_for_the_name_of_the_url(us: Caller) -> None:
    other = us.internet.host("other.test")
    peer = ScriptedPeer(us.internet, "right.test")
    other.listen(443, peer.serve, tls=["wrong.test"])
    with pytest.raises(http.HttpFailure, match="certificate refused"):
        await http.fetch(us.dialler, Target("other.test", 443), "/", [("Host", "x")], max_bytes=1)
    assert peer.requests == []


async def test_a_certificate_of_an_unknown_authority_is_refused(us: Caller) -> None:
    async with Internet.open(seed=2) as elsewhere:
        foreign = elsewhere.server_tls("foreign.test")
    peer = ScriptedPeer(us.internet, "foreign.test")
    peer.host.listen(443, peer.serve, tls=foreign)
    with pytest.raises(http.HttpFailure, match="certificate refused"):
        await http.fetch(us.dialler, Target("foreign.test", 443), "/", [("Host", "x")], max_bytes=1)


async def test_verification_can_be_switched_off(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "lax.test")
    peer.on("GET", "/", {"fine": True})
    peer.host.listen(443, peer.serve, tls=["somebody.else.test"])
    lax = Dialler(us.host.network, us.host.resolver, AddressPolicy(), tls_context(verify=False))
    response = await http.fetch(lax, Target("lax.test", 443), "/", [("Host", "x")], max_bytes=99)
    assert response.status == 200


async def test_a_private_authority_made_without_care_is_believed_when_configured(
    us: Caller, tmp_path: Path
) -> None:
    """Made with plain openssl, such a certificate lacks extensions that Python 3.13 demands by default."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private")])
    now = datetime.now(UTC)
    dates = (now - timedelta(days=1), now + timedelta(days=1))
    plain = x509.BasicConstraints(ca=True, path_length=None)
    ca = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, *dates)
        .add_extension(plain, critical=False)
        .sign(key, hashes.SHA256())
    )
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "careless.test")])
    leaf = (
        x509.CertificateBuilder(name, subject, leaf_key.public_key(), 2, *dates)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("careless.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + leaf.public_bytes(Encoding.PEM)
    )
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(ca.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    peer = ScriptedPeer(us.internet, "careless.test")
    peer.on("GET", "/", {})
    peer.host.listen(443, peer.serve, tls=server)
    for context, believed in ((tls_context(ca_file=str(ca_file)), True), (tls_context(), False)):
        dialler = Dialler(us.host.network, us.host.resolver, AddressPolicy(), context)
        fetch = partial(http.fetch, dialler, Target("careless.test", 443), "/", [("Host", "x")], max_bytes=9)
        if believed:
            assert (await fetch()).status == 200
        else:
            with pytest.raises(http.HttpFailure, match="certificate refused"):
                await fetch()


async def test_two_names_on_one_address_do_not_share_a_connection(us: Caller) -> None:
    """The pool's key is the name that was verified; a connection for one name must not serve the other."""
    host = us.internet.host("shared.test")
    us.internet.dns.add("a.test", host.address)
    us.internet.dns.add("b.test", host.address)
    peer = ScriptedPeer(us.internet, "shared.test")
    host.listen(8448, peer.serve, tls=us.internet.server_tls("a.test"))
    peer.on("GET", "/", Reply(json={}))
    pool = Connections(us.dialler, lambda: [Target(host.address, 8448)], most=4)

    async def get(name: str) -> int:
        url = httpcore2.URL(scheme="https", host=name, port=8448, target="/")
        async with http.exchange(pool, "GET", url, [("Host", name)], None) as response:
            await http.read_body(response, 100)
            return response.status

    assert await get("a.test") == 200
    assert await get("a.test") == 200
    with pytest.raises(http.HttpFailure, match="certificate refused"):
        await get("b.test")
    assert us.internet.link(us.host, host).connections == 2
    assert len(peer.requests) == 2
    await pool.aclose()


async def test_an_address_is_verified_as_an_address(us: Caller) -> None:
    peer = ScriptedPeer(us.internet, "byip.test")
    peer.on("GET", "/", {})
    peer.host.listen(443, peer.serve, tls=[peer.host.address])
    target = Target(peer.host.address, 443)
    response = await http.fetch(us.dialler, target, "/", [("Host", "x")], max_bytes=99)
    assert response.status == 200
    peer.host.listen(444, peer.serve, tls=["byip.test"])
    with pytest.raises(http.HttpFailure, match="certificate refused"):
        await http.fetch(us.dialler, Target(peer.host.address, 444), "/", [("Host", "x")], max_bytes=99)


async def test_a_handshake_that_never_comes_ends(us: Caller) -> None:
    async def silent(stream: trio.abc.Stream, peer: SocketAddress, local: SocketAddress) -> None:
        await trio.sleep_forever()

    us.internet.host("silent.test").listen(443, silent, tls=False)
    with pytest.raises(http.HttpFailure, match="too long"):
        await http.fetch(us.dialler, Target("silent.test", 443), "/", [("Host", "x")], max_bytes=1)
