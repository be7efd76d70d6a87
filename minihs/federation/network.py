# SPDX-License-Identifier: Apache-2.0
"""What the federation code needs from the outside: TCP connections and DNS.

A server is handed a `Network` and a `Resolver`; tests hand it an in-memory internet. Nothing else in minihs
opens an outgoing socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import trio


class ResolverFailure(Exception):
    """DNS did not answer (SERVFAIL, time-out, no name server): whether the name exists is unknown."""


class NoRecord(Exception):
    """DNS answered that there is no such record."""


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV record (RFC 2782). `target` has no final dot; an empty one means "service not offered here"."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class SrvAnswer:
    records: tuple[Srv, ...]
    ttl: int
    """Seconds."""


class Resolver(Protocol):
    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of a host name, by CNAME, AAAA and A. Raises NoRecord or ResolverFailure."""
        ...

    async def srv(self, name: str) -> SrvAnswer:
        """The SRV records at `name`. Raises NoRecord or ResolverFailure."""
        ...


class Network(Protocol):
    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        """Open a TCP connection to an IP address. Raises OSError. Has no deadline of its own."""
        ...


class TcpNetwork:
    """The real network."""

    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        return await trio.open_tcp_stream(address, port, happy_eyeballs_delay=None)
