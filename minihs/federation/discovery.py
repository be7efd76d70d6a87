# SPDX-License-Identifier: Apache-2.0
"""From a server name to where it is (spec: server-server-api, "Resolving server names").

    1    an IP literal                 that address, port given or 8448
    2    a name with a port            that name and port
    3    .well-known/matrix/server     gives a delegated name, which goes on
    3.1    an IP literal               that address, port given or 8448
    3.2    a name with a port          that name and port
    3.3    without a port              SRV _matrix-fed._tcp.<delegated>
    3.4                                SRV _matrix._tcp.<delegated>   (deprecated)
    3.5                                <delegated> port 8448
    4    no delegation                 SRV _matrix-fed._tcp.<name>
    5                                  SRV _matrix._tcp.<name>   (deprecated)
    6                                  <name> port 8448

The certificate must be for the name that DNS was asked about (never for the target of an SRV record), and
`Host` is that name, with its port if it came with one.

What was found is remembered in the database, what was not found as well. A look-up that fails without an
answer (SERVFAIL, time-out, a web server that is down) says nothing about whether the record exists: then the
last answer stands, for up to 48 hours after it was given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from minihs.federation import well_known
from minihs.federation.dial import Dialler, Target
from minihs.federation.hostnames import is_dialable_host
from minihs.federation.locks import KeyedLocks
from minihs.federation.network import NoRecord, Resolver, ResolverFailure, Srv
from minihs.federation.srv import in_order
from minihs.matrix.federation_errors import Unreachable
from minihs.matrix.ids import ServerName, is_ip_literal, parse_server_name
from minihs.runtime import Runtime
from minihs.store import discovery_cache
from minihs.store.database import Database, Tx
from minihs.store.discovery_cache import Cached

DEFAULT_PORT = 8448

MAX_STALE_MS = 48 * 3600 * 1000
"""An answer older than this is not used, whatever happens (the spec's recommended maximum)."""

NEGATIVE_TTL = 3600
"""Seconds until a .well-known or SRV record that was not there is looked for again."""

FAILURE_TTL = 60
"""Seconds after a failed look-up, doubled with each further one up to NEGATIVE_TTL."""

SRV_MIN_TTL, SRV_MAX_TTL = 60, 24 * 3600

IMMUTABLE_TTL = 3600
"""Seconds that a route made without any look-up is kept; there is nothing to refresh."""

PRUNE_EVERY = 500
"""Look-ups between two clean-ups of the cache."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a server."""

    step: str
    """The step of the spec that found it, such as "3.2"."""
    verify_name: str
    """Host name or IP (without brackets) that the certificate must be for."""
    host_header: str
    places: tuple[Srv, ...]
    """Where to connect: one place, or what SRV records said."""
    expires_ms: int

    def targets(self, runtime: Runtime) -> list[Target]:
        """In the order to try them; weighted chance decides among SRV records, anew each time."""
        return [Target(place.target, place.port) for place in in_order(self.places, runtime.random)]


class Discovery:
    def __init__(self, runtime: Runtime, db: Database, resolver: Resolver, dialler: Dialler) -> None:
        self._runtime = runtime
        self._db = db
        self._resolver = resolver
        self._dialler = dialler
        self._locks: KeyedLocks[tuple[str, str]] = KeyedLocks()
        self._stored = 0

    async def find(self, server_name: str) -> Route:
        """The way to a server. Raises Unreachable when it can't be told."""
        name = parse_server_name(server_name)
        if name is None:
            raise Unreachable(server_name[:255], "is not a valid server name")
        direct = self._without_look_up(name, "1", "2")
        if direct is not None:
            return direct
        entry = await self._well_known(name.host)
        delegated = parse_server_name(entry.answer) if isinstance(entry.answer, str) else None
        if delegated is None:
            return await self._by_srv(server_name, name.host, ("4", "5", "6"), entry.expires_ts)
        direct = self._without_look_up(delegated, "3.1", "3.2", entry.expires_ts)
        if direct is not None:
            return direct
        return await self._by_srv(server_name, delegated.host, ("3.3", "3.4", "3.5"), entry.expires_ts)

    async def expire(self, server_name: str) -> None:
        """Look everything about the server up again: it does not answer where we thought it was."""
        name = parse_server_name(server_name)
        if name is None:
            return
        now = self._runtime.clock.now_ms()
        names = {name.host.lower()}
        cached = discovery_cache.get(self._db.read, "well-known", name.host.lower())
        if cached is not None and isinstance(cached.answer, str):
            delegated = parse_server_name(cached.answer)
            if delegated is not None:
                names.add(delegated.host.lower())

        def expire(tx: Tx) -> None:
            for each in names:
                discovery_cache.expire(tx, each, now)

        await self._db.write(expire)

    def _without_look_up(
        self, name: ServerName, ip_step: str, port_step: str, expires_ms: int | None = None
    ) -> Route | None:
        """Steps 1 and 2, or 3.1 and 3.2: IP literals, and names with a port."""
        if expires_ms is None:
            expires_ms = self._runtime.clock.now_ms() + IMMUTABLE_TTL * 1000
        header = name.host if name.port is None else f"{name.host}:{name.port}"
        port = DEFAULT_PORT if name.port is None else name.port
        if is_ip_literal(name.host):
            bare = name.host.removeprefix("[").removesuffix("]")
            return Route(ip_step, bare, header, (Srv(0, 0, port, bare),), expires_ms)
        if not is_dialable_host(name.host):
            raise Unreachable(name.host, "is not a host name that can be looked up")
        if name.port is not None:
            return Route(port_step, name.host, header, (Srv(0, 0, port, name.host),), expires_ms)
        return None

    async def _by_srv(
        self, server_name: str, host: str, steps: tuple[str, str, str], expires_ms: int
    ) -> Route:
        """Steps 4 to 6, or 3.3 to 3.5: SRV under either name, then port 8448."""
        for step, service in zip(steps[:2], ("_matrix-fed._tcp", "_matrix._tcp"), strict=True):
            entry = await self._srv(server_name, f"{service}.{host}")
            expires_ms = min(expires_ms, entry.expires_ts)
            if entry.answer is not None:
                places = tuple(Srv(*record) for record in entry.answer if record[3])
                return Route(step, host, host, places, expires_ms)
        return Route(steps[2], host, host, (Srv(0, 0, DEFAULT_PORT, host),), expires_ms)

    async def _well_known(self, host: str) -> Cached:
        async def ask() -> tuple[Any, int]:
            found = await well_known.ask(self._dialler, host, self._runtime.clock.now_ms())
            return found.server, found.ttl if found.server is not None else min(found.ttl, NEGATIVE_TTL)

        entry = await self._cached("well-known", host.lower(), ask)
        if not entry.known:
            # Never an answer: many servers have no web server beside them. The spec goes on with step 4.
            return Cached(None, True, entry.fetched_ts, entry.expires_ts, entry.failures)
        return entry

    async def _srv(self, server_name: str, name: str) -> Cached:
        async def ask() -> tuple[Any, int]:
            try:
                found = await self._resolver.srv(name)
            except NoRecord:
                return None, NEGATIVE_TTL
            ttl = max(SRV_MIN_TTL, min(found.ttl, SRV_MAX_TTL))
            return [[r.priority, r.weight, r.port, r.target] for r in found.records], ttl

        entry = await self._cached("srv", name.lower(), ask)
        if not entry.known:
            raise Unreachable(server_name, f"looking up {name} failed")
        return entry

    async def _cached(self, kind: str, name: str, ask: Callable[[], Awaitable[tuple[Any, int]]]) -> Cached:
        """The answer in the cache, or a new one. If nobody answers: the last answer, if it is not too old."""
        async with self._locks.hold((kind, name)):
            old = discovery_cache.get(self._db.read, kind, name)
            now = self._runtime.clock.now_ms()
            if old is not None and now < old.expires_ts <= now + MAX_STALE_MS:
                return old
            try:
                answer, ttl = await ask()
            except (well_known.NoAnswer, ResolverFailure):
                failures = 1 if old is None else min(old.failures + 1, 20)
                ttl = min(FAILURE_TTL * 2 ** (failures - 1), NEGATIVE_TTL)
                expires = now + self._jittered_ms(ttl)
                if old is not None and old.known and 0 <= now - old.fetched_ts < MAX_STALE_MS:
                    entry = Cached(old.answer, True, old.fetched_ts, expires, failures)
                else:
                    entry = Cached(None, False, now, expires, failures)
            else:
                entry = Cached(answer, True, now, now + self._jittered_ms(ttl), 0)
            await self._store(kind, name, entry, now)
            return entry

    async def _store(self, kind: str, name: str, entry: Cached, now: int) -> None:
        self._stored += 1
        prune = self._stored % PRUNE_EVERY == 0

        def store(tx: Tx) -> None:
            discovery_cache.put(tx, kind, name, entry)
            if prune:
                discovery_cache.prune(tx, now)

        await self._db.write(store)

    def _jittered_ms(self, seconds: float) -> int:
        """Shorter by up to a tenth, so that what was learnt together is not asked again together."""
        return int(seconds * 1000 * self._runtime.random.uniform(0.9, 1.0))
