# SPDX-License-Identifier: Apache-2.0
"""The calling half of one server, without the rest: what most tests here are about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from minihs.federation.addresses import AddressPolicy
from minihs.federation.client import FederationClient
from minihs.federation.dial import Dialler
from minihs.federation.discovery import Discovery
from minihs.federation.pools import Pools
from minihs.matrix.signatures import SigningKey
from minihs.runtime import Runtime
from minihs.store.database import Database
from minihs.testing.clock import VirtualClock, virtual_runtime
from minihs.testing.internet import Host, Internet


@dataclass
class Caller:
    """A server that calls others."""

    name: str
    internet: Internet
    host: Host
    clock: VirtualClock
    runtime: Runtime
    db: Database
    dialler: Dialler
    discovery: Discovery
    pools: Pools
    key: SigningKey
    client: FederationClient


@asynccontextmanager
async def caller(
    internet: Internet, folder: Path, name: str = "us.test", *, allow_networks: tuple[str, ...] = ()
) -> AsyncIterator[Caller]:
    """Open one; the database of the same folder is found again."""
    host = internet.host(name)
    clock = VirtualClock()
    runtime = virtual_runtime(name, clock)
    dialler = Dialler(host.network, host.resolver, AddressPolicy(allow_networks), internet.client_tls())
    key = SigningKey.generate(b"\1" * 32, "us")
    async with Database.open(folder / f"{name}.db", runtime, inline=True, synchronous="OFF") as db:
        discovery = Discovery(runtime, db, host.resolver, dialler)
        pools = Pools(runtime, dialler)
        client = FederationClient(name, key, runtime, discovery, pools, folder / "spool")
        try:
            yield Caller(name, internet, host, clock, runtime, db, dialler, discovery, pools, key, client)
        finally:
            await client.aclose()
