# SPDX-License-Identifier: Apache-2.0
"""Serving: the sockets, how many connections they may have, and how they are shut down.

Every connection, of a socket or of the tests' in-memory network, comes in through `Edge.handle`.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext

from minihs.config import ALL_APIS, Config, ConfigError, Listen
from minihs.web.client_address import Network, is_trusted, parse_networks
from minihs.web.connection import Connection
from minihs.web.http11 import Address, EdgeConfig
from minihs.web.rate_limits import network_of

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 1000
MAX_CONNECTIONS_PER_ADDRESS = 100
"""An IPv6 address counts as its /64. Unix sockets and trusted proxies are exempt."""
BACKLOG = 512
DRAIN_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What a listener serves, and to whom it lends more trust."""

    apis: frozenset[str] = frozenset(ALL_APIS)
    trusted_proxies: tuple[Network, ...] = ()

    @classmethod
    def of(cls, listen: Listen) -> Policy:
        return cls(frozenset(listen.apis), parse_networks(listen.trusted_proxies))


@dataclass(slots=True)
class Limits:
    connections: int = MAX_CONNECTIONS
    connections_per_address: int = MAX_CONNECTIONS_PER_ADDRESS


@dataclass(slots=True)
class Door:
    """One open listener. `tls` is replaced by `Edge.reload_tls`; open connections keep what they have."""

    listen: Listen
    listener: trio.SocketListener
    tls: ssl.SSLContext | None
    policy: Policy = field(default_factory=Policy)

    def __str__(self) -> str:
        scheme = "http" if self.tls is None else "https"
        path = self.listen.unix_path
        if path is not None:
            return f"{scheme}+unix:{path}"
        host, port = self.listener.socket.getsockname()[:2]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Edge:
    """The serving side of one server. Owns its connections."""

    def __init__(self, app: Any, limits: Limits | None = None) -> None:
        self._app = ASGIWrapper(app)
        self._limits = limits or Limits()
        self._config = EdgeConfig()
        self._context = WorkerContext(None)
        self._connections: set[Connection] = set()
        self._per_address: Counter[str] = Counter()
        self.doors: list[Door] = []

    def __repr__(self) -> str:
        return f"<Edge: {len(self._connections)} connections, {len(self.doors)} listeners>"

    async def handle(
        self, stream: trio.abc.Stream, peer: Address, local: Address, policy: Policy | None = None
    ) -> None:
        """Serve one connection until it ends. TLS: hand in an `SSLStream`; the handshake is done here."""
        policy = policy or Policy()
        is_proxy = peer is None or is_trusted(peer[0], policy.trusted_proxies)
        asker = None if peer is None or is_proxy else network_of(peer[0])
        if not self._has_room_for(asker):
            await trio.aclose_forcefully(stream)
            return
        state = {
            "apis": policy.apis,
            "is_proxy": is_proxy,
            "trusted_proxies": policy.trusted_proxies,
        }
        connection = Connection(self._app, self._config, self._context, state, stream, peer=peer, local=local)
        self._connections.add(connection)
        if asker is not None:
            self._per_address[asker] += 1
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if asker is not None:
                self._per_address[asker] -= 1
                if not self._per_address[asker]:
                    del self._per_address[asker]

    def _has_room_for(self, asker: str | None) -> bool:
        if self._context.terminated.is_set() or len(self._connections) >= self._limits.connections:
            return False
        return asker is None or self._per_address[asker] < self._limits.connections_per_address

    async def open(self, config: Config) -> None:
        """Bind every listener of the configuration; raises ConfigError with what to do."""
        for listen in config.listen:
            tls = make_tls_context(listen)
            for listener in await open_listeners(listen):
                self.doors.append(Door(listen, listener, tls, Policy.of(listen)))

    async def open_admin(self, path: Path) -> None:
        """The socket for `minihs user add` and such, for the owner of the data folder only."""
        listen = Listen(address=f"unix:{path}")
        try:
            listener = await open_unix_listener(str(path), mode=0o600)
        except OSError as error:  # such as a path of more than 107 bytes
            log.warning("no admin socket; stop the server to use `minihs user add`", reason=str(error))
            return
        self.doors.append(Door(listen, listener, None, Policy(apis=frozenset({"admin"}))))

    async def serve(self, stop: trio.Event) -> None:
        """Serve until `stop`; then accept no more and let open requests end within DRAIN_SECONDS."""
        async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
            for door in self.doors:
                accepting.start_soon(
                    partial(
                        trio.serve_listeners,
                        partial(self._accept, door),
                        [door.listener],
                        handler_nursery=connections,
                    )
                )
            await stop.wait()
            accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = await self.wind_up()

    async def wind_up(self) -> float:
        """Close idle connections now, busy ones after their answer; returns when the last must be gone."""
        cut_off = trio.current_time() + DRAIN_SECONDS
        await self._context.terminated.set()
        for connection in list(self._connections):
            connection.wind_up(cut_off)
        for door in self.doors:
            if door.listen.unix_path is not None:
                with suppress(FileNotFoundError):
                    os.unlink(door.listen.unix_path)
        return cut_off

    def reload_tls(self) -> None:
        """Read the certificates again. One that can't be used is logged and the old one stays."""
        for door in self.doors:
            try:
                door.tls = make_tls_context(door.listen)
            except ConfigError as error:
                log.error("the certificate was not reloaded", listener=str(door), reason=str(error))
            else:
                log.info("certificate reloaded", listener=str(door))

    async def _accept(self, door: Door, stream: trio.SocketStream) -> None:
        try:
            peer = address_of(stream.socket.family, stream.socket.getpeername())
            local = address_of(stream.socket.family, stream.socket.getsockname())
        except OSError:  # gone before it was looked at
            await trio.aclose_forcefully(stream)
            return
        served: trio.abc.Stream = stream
        if door.tls is not None:
            served = trio.SSLStream(stream, door.tls, server_side=True, https_compatible=False)
        await self.handle(served, peer, local, door.policy)


def address_of(family: int, name: Any) -> Address:
    return None if family == socket.AF_UNIX else (name[0], name[1])


def make_tls_context(listen: Listen) -> ssl.SSLContext | None:
    if not listen.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(listen.tls_certificate, listen.tls_key)
    except OSError as error:
        raise ConfigError(
            f"listen {listen.address}: can't use the certificate {listen.tls_certificate} "
            f"with the key {listen.tls_key}: {error.strerror or error}."
        ) from error
    return context


async def open_listeners(listen: Listen) -> list[trio.SocketListener]:
    try:
        if listen.unix_path is not None:
            return [await open_unix_listener(listen.unix_path)]
        host, port = listen.tcp
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        hint = " Is another server running?" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"can't listen on {listen.address}: {error.strerror or error}.{hint}") from error


async def open_unix_listener(path: str, mode: int = 0o666) -> trio.SocketListener:
    """A socket that is left over from a dead server is replaced; a living one's is not.

    A proxy runs as another user, hence the mode; the folder decides who gets as far as the socket.
    """
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if await trio.Path(path).is_socket() and not await somebody_answers(path):
            os.unlink(path)
        await sock.bind(path)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


async def somebody_answers(path: str) -> bool:
    probe = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await probe.connect(path)
    except OSError:
        return False
    finally:
        probe.close()
    return True
