# SPDX-License-Identifier: Apache-2.0
"""The one dialler: every outgoing connection of the server is made here.

Resolve the name, drop the addresses that must not be dialled, connect to what is left by Happy Eyeballs (RFC
8305), then TLS for the name that the caller wants verified. Federation, keys, media, previews and push all
use it, so the rules can't be forgotten in one of them.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import httpcore2
import trio

from minihs.federation.addresses import AddressPolicy
from minihs.federation.network import Network, NoRecord, Resolver, ResolverFailure

ATTEMPT_DELAY = 0.25
"""Seconds that one address gets before the next is tried beside it (RFC 8305 section 5)."""

CONNECT_TIMEOUT = 10.0
"""Seconds for the look-up and the TCP connections to one host together."""

MAX_ATTEMPTS = 8
"""Addresses tried per host."""


class DialError(Exception):
    """No connection. The text says why and may be shown."""


class NameNotFound(DialError):
    """DNS says that the host has no address."""


class ForbiddenAddress(DialError):
    """The host has only addresses that we do not dial."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: a host name or IP literal (without brackets), and a port."""

    host: str
    port: int


def tls_context(*, verify: bool = True, ca_file: str = "") -> ssl.SSLContext:
    """The client side of TLS: the system's authorities and those of `ca_file`."""
    context = httpcore2.default_ssl_context()
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
        # Private authorities made with plain openssl often lack extensions that the strict mode demands.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Dialler:
    """Opens checked connections."""

    def __init__(
        self, network: Network, resolver: Resolver, policy: AddressPolicy, tls: ssl.SSLContext
    ) -> None:
        self._network = network
        self._resolver = resolver
        self._policy = policy
        self.tls = tls
        tls.set_alpn_protocols(["http/1.1"])

    async def connect(self, target: Target) -> trio.abc.Stream:
        """A TCP connection to the target. Raises DialError."""
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                addresses = await self._addresses(target.host)
                return await self._race(target, addresses)
        except trio.TooSlowError:
            raise DialError(f"no connection to {target.host} port {target.port} in time") from None

    async def connect_any(self, targets: Sequence[Target]) -> trio.abc.Stream:
        """The first target, in order, that can be connected to."""
        problem: DialError = DialError("there is nothing to connect to")
        for target in targets:
            try:
                return await self.connect(target)
            except DialError as error:
                problem = error
        raise problem

    async def _addresses(self, host: str) -> list[str]:
        try:
            found = [str(ip_address(host))]
        except ValueError:
            try:
                found = await self._resolver.addresses(host)
            except NoRecord:
                raise NameNotFound(f"{host} has no address") from None
            except ResolverFailure as failure:
                raise DialError(f"looking up {host} failed: {failure}") from failure
        allowed = [address for address in found if self._policy.permits(address)]
        if not allowed:
            raise ForbiddenAddress(f"{host} has no address that may be dialled")
        return _interleaved(allowed)[:MAX_ATTEMPTS]

    async def _race(self, target: Target, addresses: list[str]) -> trio.abc.Stream:
        """Happy Eyeballs: start the attempts one after the other, keep the first that succeeds."""
        winner: list[trio.abc.Stream] = []
        errors: list[OSError] = []

        async def attempt(position: int, failed: trio.Event) -> None:
            try:
                stream = await self._network.connect(addresses[position], target.port)
            except OSError as error:
                errors.append(error)
                failed.set()
                return
            if winner:
                await trio.aclose_forcefully(stream)  # two finished in the same turn
            else:
                winner.append(stream)
                nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for position in range(len(addresses)):
                    failed = trio.Event()
                    nursery.start_soon(attempt, position, failed)
                    with trio.move_on_after(ATTEMPT_DELAY):
                        await failed.wait()
        except BaseException:
            # Cancelled from outside in the very turn that a connection was made.
            for stream in winner:
                await trio.aclose_forcefully(stream)
            raise
        if winner:
            return winner[0]
        reasons = "; ".join(dict.fromkeys(error.strerror or str(error) for error in errors))
        raise DialError(f"connecting to {target.host} port {target.port} failed: {reasons}") from errors[0]


def _interleaved(addresses: list[str]) -> list[str]:
    """Alternate between the address families, keeping the order within each."""
    v6 = [address for address in addresses if ":" in address]
    v4 = [address for address in addresses if ":" not in address]
    mixed: list[str] = []
    for position in range(max(len(v6), len(v4))):
        mixed += v6[position : position + 1] + v4[position : position + 1]
    return mixed
