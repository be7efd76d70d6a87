# SPDX-License-Identifier: Apache-2.0
"""Listeners on real sockets: TLS and its reload, unix sockets, what a bad listener says, draining."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509

from minihs.config import Config, ConfigError, Listen
from minihs.web.routing import NONE, Call, JsonObject, Routes
from minihs.web.serving import DRAIN_SECONDS, Edge

from .kit import Visitor, make_edge, make_services

VERSIONS = "/_matrix/client/versions"


@asynccontextmanager
async def serving(*listeners: Listen, routes: Routes | None = None) -> AsyncIterator[tuple[Edge, trio.Event]]:
    services = make_services()
    config = Config(server_name="example.org", listen=list(listeners))
    edge = make_edge(routes, services=services)
    await edge.open(config)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.serve, stop)
        yield edge, stop
        stop.set()


@pytest.fixture(autouse=True)
async def visits() -> AsyncIterator[list[trio.abc.Stream]]:
    """Closes the test's ends of its connections."""
    VISITS.clear()
    yield VISITS
    for stream in VISITS:
        await trio.aclose_forcefully(stream)


VISITS: list[trio.abc.Stream] = []


def visitor_on(stream: trio.abc.Stream) -> Visitor:
    VISITS.append(stream)
    return Visitor(stream)


def port_of(edge: Edge, door: int = 0) -> int:
    port: int = edge.doors[door].listener.socket.getsockname()[1]
    return port


async def visit_tcp(port: int) -> Visitor:
    return visitor_on(await trio.open_tcp_stream("127.0.0.1", port))


class Authority:
    """A test CA and the files of a certificate for localhost."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.certificate = folder / "certificate.pem"
        self.key = folder / "key.pem"
        self.trust = ssl.create_default_context()
        self.ca.configure_trust(self.trust)
        self.issue()

    def issue(self) -> int:
        """Write a new certificate; returns its serial number."""
        leaf = self.ca.issue_cert("localhost")
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.key.write_bytes(leaf.private_key_pem.bytes())
        return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number

    async def visit(self, port: int) -> tuple[Visitor, int]:
        """Connect with TLS; returns the serial number that the server showed as well."""
        stream = trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port), self.trust, server_hostname="localhost"
        )
        await stream.do_handshake()
        shown = stream.getpeercert()
        assert shown is not None
        return visitor_on(stream), int(str(shown["serialNumber"]), 16)

    def listen(self) -> Listen:
        return Listen(address="127.0.0.1:0", tls_certificate=str(self.certificate), tls_key=str(self.key))


async def test_plain_http_is_served() -> None:
    async with serving(Listen(address="127.0.0.1:0")) as (edge, _):
        visitor = await visit_tcp(port_of(edge))
        assert (await visitor.request("GET", VERSIONS)).status == 200


async def test_tls_is_served(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(authority.listen()) as (edge, _):
        visitor, _serial = await authority.visit(port_of(edge))
        assert (await visitor.request("GET", VERSIONS)).status == 200


async def test_a_reload_changes_the_certificate_of_new_connections_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(authority.listen()) as (edge, _):
        old, old_serial = await authority.visit(port_of(edge))
        new_serial = authority.issue()
        edge.reload_tls()
        _, shown = await authority.visit(port_of(edge))
        assert shown == new_serial != old_serial
        assert (await old.request("GET", VERSIONS)).status == 200


async def test_a_broken_certificate_does_not_replace_a_good_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(authority.listen()) as (edge, _):
        authority.certificate.write_text("half a file")
        edge.reload_tls()
        visitor, _serial = await authority.visit(port_of(edge))
        assert (await visitor.request("GET", VERSIONS)).status == 200


async def test_a_unix_socket_is_served_and_removed_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "minihs.sock"
    async with serving(Listen(address=f"unix:{path}")):
        visitor = visitor_on(await trio.open_unix_socket(str(path)))
        assert (await visitor.request("GET", VERSIONS)).status == 200
        await visitor.hang_up()
    assert not path.exists()


async def test_a_unix_socket_that_a_dead_server_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "minihs.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(Listen(address=f"unix:{path}")):
        visitor = visitor_on(await trio.open_unix_socket(str(path)))
        assert (await visitor.request("GET", VERSIONS)).status == 200
        await visitor.hang_up()


async def test_the_unix_socket_of_a_living_server_is_left_alone(tmp_path: Path) -> None:
    listen = Listen(address=f"unix:{tmp_path / 'minihs.sock'}")
    async with serving(listen):
        with pytest.raises(ConfigError, match="Is another server running"):
            await make_edge().open(Config(server_name="example.org", listen=[listen]))


async def test_two_listeners_serve_different_apis() -> None:
    clients, servers = (
        Listen(address="127.0.0.1:0", apis=["client"]),
        Listen(address="127.0.0.1:0", apis=["federation"]),
    )
    async with serving(clients, servers) as (edge, _):
        assert (await (await visit_tcp(port_of(edge, 0))).request("GET", VERSIONS)).status == 200
        assert (await (await visit_tcp(port_of(edge, 1))).request("GET", VERSIONS)).status == 404


async def test_a_port_in_use_says_so() -> None:
    async with serving(Listen(address="127.0.0.1:0")) as (edge, _):
        taken = Listen(address=f"127.0.0.1:{port_of(edge)}")
        with pytest.raises(ConfigError, match="Is another server running"):
            await make_edge().open(Config(server_name="example.org", listen=[taken]))


async def test_a_missing_certificate_says_which(tmp_path: Path) -> None:
    listen = Listen(address="127.0.0.1:0", tls_certificate=str(tmp_path / "no.pem"), tls_key="no.key")
    with pytest.raises(ConfigError, match=r"no\.pem"):
        await make_edge().open(Config(server_name="example.org", listen=[listen]))


async def test_draining_ends_after_three_seconds_with_a_request_that_does_not() -> None:
    routes = Routes()

    @routes.get("/_test/for-ever", auth=NONE)
    async def for_ever(_: Call) -> JsonObject:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(Listen(address="127.0.0.1:0"), routes=routes) as (edge, stop):
        idle, busy = await visit_tcp(port_of(edge)), await visit_tcp(port_of(edge))
        await idle.request("GET", VERSIONS)
        await busy.send(b"GET /_test/for-ever HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.2)
        started = trio.current_time()
        stop.set()
        assert await idle.is_closed()
        assert trio.current_time() - started < 1
    assert DRAIN_SECONDS - 0.5 < trio.current_time() - started < DRAIN_SECONDS + 0.5
