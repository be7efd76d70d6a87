# SPDX-License-Identifier: Apache-2.0
"""An internet in memory: hosts with addresses, names, certificates and ports, and links between them.

    async with Internet.open(seed=1) as internet:
        one, two = internet.host("one.test"), internet.host("two.test")
        two.listen(8448, handler, tls=True)      # handler(stream, peer, local)
        stream = await one.network.connect(two.address, 8448)
        internet.partition([one], [two])

Hosts get public addresses, so that the rules about private ones are in force in tests as well. Everything
happens in one trio loop, by trio's clock, and by chance only through the seed. Every connection is counted,
by link.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trustme

from minihs.federation.network import NoRecord, ResolverFailure, Srv, SrvAnswer
from minihs.testing.streams import Link, LinkStream, connection

type SocketAddress = tuple[str, int]
type Handler = Callable[[trio.abc.Stream, SocketAddress, SocketAddress], Awaitable[None]]


@dataclass
class Dns:
    """The records that everybody sees, and how often each name was asked for."""

    addresses: dict[str, list[str]] = field(default_factory=dict)
    srv: dict[str, SrvAnswer] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    """Names for which the name servers give no answer (SERVFAIL)."""
    queries: list[str] = field(default_factory=list)

    def add(self, name: str, *addresses: str) -> None:
        self.addresses.setdefault(name.lower(), []).extend(addresses)

    def add_srv(self, name: str, *records: Srv, ttl: int = 3600) -> None:
        self.srv[name.lower()] = SrvAnswer(records, ttl)


class DnsClient:
    """A `Resolver`."""

    def __init__(self, dns: Dns) -> None:
        self._dns = dns

    async def addresses(self, host: str) -> list[str]:
        await self._ask(host)
        found = self._dns.addresses.get(host.lower().rstrip("."))
        if not found:
            raise NoRecord(host)
        return list(found)

    async def srv(self, name: str) -> SrvAnswer:
        await self._ask(name)
        found = self._dns.srv.get(name.lower().rstrip("."))
        if found is None:
            raise NoRecord(name)
        return found

    async def _ask(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self._dns.queries.append(name)
        if name.lower() in self._dns.failing:
            raise ResolverFailure(f"no name server answers for {name}")


@dataclass
class _Connection:
    ends: tuple[LinkStream, LinkStream]
    hosts: tuple[Host, Host]
    scope: trio.CancelScope


class Host:
    """A machine. What it connects to, it connects to from its own address."""

    def __init__(self, internet: Internet, name: str, address: str) -> None:
        self.internet = internet
        self.name = name
        self.address = address
        self.network = HostNetwork(self)
        self.resolver = DnsClient(internet.dns)
        self.is_up = True
        self.ports: dict[int, tuple[Handler, ssl.SSLContext | None]] = {}

    def listen(
        self, port: int, handler: Handler, *, tls: bool | Iterable[str] | ssl.SSLContext = True
    ) -> None:
        """Serve a port. `tls`: True for a certificate of the host's own name, names for those, False for
        none."""
        if tls is True:
            tls = self.internet.server_tls(self.name)
        elif not isinstance(tls, bool | ssl.SSLContext):
            tls = self.internet.server_tls(*tls)
        self.ports[port] = (handler, tls or None)

    def down(self) -> None:
        """Pull the plug: connections break, new ones are refused."""
        self.is_up = False
        self.internet.break_connections(self)

    def up(self) -> None:
        self.is_up = True

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address}{'' if self.is_up else ' down'}>"


class HostNetwork:
    """A `Network`, as seen from one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        return await self._host.internet.connect(self._host, address, port)


class Internet:
    """Use `Internet.open`."""

    def __init__(self, seed: int | str, nursery: trio.Nursery) -> None:
        self.random = random.Random(seed)
        self.dns = Dns()
        self.ca = trustme.CA()
        self.latency = 0.0
        """Of links made from now on."""
        self._nursery = nursery
        self._hosts: dict[str, Host] = {}
        self._links: dict[frozenset[str], Link] = {}
        self._connections: list[_Connection] = []
        self._ephemeral = 40_000

    @classmethod
    @asynccontextmanager
    async def open(cls, seed: int | str = 0) -> AsyncIterator[Internet]:
        async with trio.open_nursery() as nursery:
            try:
                yield cls(seed, nursery)
            finally:
                nursery.cancel_scope.cancel()

    # -- making it --

    def host(self, name: str, *, address: str | None = None) -> Host:
        """A new machine with a name in DNS; or one known already."""
        if name in self._hosts:
            return self._hosts[name]
        number = len(self._hosts) + 1
        host = Host(self, name, address or f"45.0.{number >> 8}.{number & 255}")
        self._hosts[name] = host
        self.dns.add(name, host.address)
        return host

    def server_tls(self, *names: str) -> ssl.SSLContext:
        """A server's context with a certificate for these names (or addresses)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context

    def server_tls_by_name(self, *names: str) -> ssl.SSLContext:
        """One port for several names, each with a certificate of its own, chosen by SNI."""
        contexts = {name: self.server_tls(name) for name in names}

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            if name not in contexts:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            connection.context = contexts[name]
            return None

        first = contexts[names[0]]
        first.sni_callback = choose
        return first

    def client_tls(self) -> ssl.SSLContext:
        """A client's context that trusts this internet's authority and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        return context

    def write_ca_file(self, folder: Path) -> str:
        """For `federation.ca_file`."""
        path = folder / "internet-ca.pem"
        self.ca.cert_pem.write_to_path(str(path))
        return str(path)

    # -- troubling it --

    def link(self, one: Host, other: Host) -> Link:
        key = frozenset((one.address, other.address))
        if key not in self._links:
            self._links[key] = Link(self.random, latency=self.latency)
        return self._links[key]

    def partition(self, *sides: Iterable[Host]) -> None:
        """Cut every link between hosts of different sides."""
        groups = [list(side) for side in sides]
        for position, group in enumerate(groups):
            for other in groups[position + 1 :]:
                for one in group:
                    for two in other:
                        self.link(one, two).set_cut(True)

    def heal(self) -> None:
        for link in self._links.values():
            link.set_cut(False)

    def break_connections(self, host: Host) -> None:
        for each in list(self._connections):
            if host in each.hosts:
                for end in each.ends:
                    end.reset()
                if each.hosts[1] is host:
                    each.scope.cancel()  # its serving side has died with it

    # -- using it --

    async def connect(self, source: Host, address: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        target = next((host for host in self._hosts.values() if host.address == address), None)
        if target is None:
            raise OSError(113, f"no route to {address}")
        link = self.link(source, target)
        await link.until_whole()
        await trio.sleep(link.delay() + link.delay())
        await link.until_whole()
        if not (source.is_up and target.is_up) or port not in target.ports:
            link.refused += 1
            raise ConnectionRefusedError(111, f"{target.name} refuses connections to port {port}")
        link.connections += 1
        self._ephemeral += 1
        near, far = connection(link)
        record = _Connection((near, far), (source, target), trio.CancelScope())
        self._connections.append(record)
        self._nursery.start_soon(
            self._serve, record, target, port, (source.address, 40_000 + self._ephemeral % 20_000)
        )
        return near

    async def _serve(self, record: _Connection, target: Host, port: int, peer: SocketAddress) -> None:
        handler, tls = target.ports[port]
        stream: trio.abc.Stream = record.ends[1]
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            with record.scope:
                await handler(stream, peer, (target.address, port))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side went away in the middle
        finally:
            self._connections.remove(record)
            await trio.aclose_forcefully(stream)
