# SPDX-License-Identifier: Apache-2.0
"""The real resolver: the hosts file, then DNS by dnspython on trio (no threads, so a jam of slow look-ups
harms nobody).

dnspython is imported for the first look-up: its 60 modules would be a twentieth of a start, and 3 MiB.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from minihs.federation.network import NoRecord, ResolverFailure, Srv, SrvAnswer

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.resolver

LIFETIME = 6.0
"""Seconds for one look-up, all name servers and retries together."""

MAX_ADDRESSES = 16
MAX_SRV_RECORDS = 32
CACHED_ANSWERS = 2_000


class HostsFile:
    """`/etc/hosts`, read again when it has changed."""

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[str, list[str]] = {}

    def addresses(self, host: str) -> list[str]:
        self._refresh()
        return list(self._names.get(host.lower(), ()))

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            self._names, self._stamp = {}, None
            return
        names: dict[str, list[str]] = {}
        for line in text.splitlines():
            address, *aliases = line.partition("#")[0].split() or [""]
            for alias in aliases:
                known = names.setdefault(alias.lower(), [])
                if address not in known:
                    known.append(address)
        self._names, self._stamp = names, stamp


class DnsResolver:
    """Names to addresses the way the system would, plus SRV."""

    def __init__(
        self, hosts: HostsFile | None = None, resolver: dns.asyncresolver.Resolver | None = None
    ) -> None:
        """By default with the system's hosts file and name servers."""
        self._hosts = HostsFile() if hosts is None else hosts
        self._resolver = resolver

    async def addresses(self, host: str) -> list[str]:
        host = host.rstrip(".").lower()
        listed = self._hosts.addresses(host)
        if listed:
            return listed
        if host == "localhost" or host.endswith(".localhost"):
            return ["127.0.0.1", "::1"]  # RFC 6761 section 6.3
        found: dict[str, list[str]] = {"AAAA": [], "A": []}
        failures: list[ResolverFailure] = []

        async def look_up(kind: str) -> None:
            try:
                answer = await self._resolve(host, kind)
            except NoRecord:
                return
            except ResolverFailure as failure:
                failures.append(failure)
                return
            found[kind] = [rdata.address for rdata in answer][:MAX_ADDRESSES]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_up, "AAAA")
            nursery.start_soon(look_up, "A")
        result = found["AAAA"] + found["A"]
        if result:
            return result  # one family failing must not hide the other
        if failures:
            raise failures[0]
        raise NoRecord(host)

    async def srv(self, name: str) -> SrvAnswer:
        from dns.rdtypes.IN.SRV import SRV

        answer = await self._resolve(name, "SRV")
        records = tuple(
            Srv(
                rdata.priority,
                rdata.weight,
                rdata.port,
                rdata.target.to_text(omit_final_dot=True).rstrip("."),
            )
            for rdata in list(answer)[:MAX_SRV_RECORDS]
            if isinstance(rdata, SRV)
        )
        if not records:
            raise NoRecord(name)
        return SrvAnswer(records, int(answer.rrset.ttl) if answer.rrset is not None else 300)

    async def _resolve(self, name: str, kind: str) -> dns.resolver.Answer:
        import dns.asyncresolver
        import dns.exception
        import dns.resolver

        try:
            if self._resolver is None:
                self._resolver = dns.asyncresolver.Resolver()
                self._resolver.cache = dns.resolver.LRUCache(CACHED_ANSWERS)
            # Only a bare label ("synapse", in a container network) is looked for in the search domains.
            return await self._resolver.resolve(
                name if "." not in name else name + ".", kind, lifetime=LIFETIME, search="." not in name
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
            raise NoRecord(name) from error
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise ResolverFailure(f"{kind} of {name}: {error}") from error
