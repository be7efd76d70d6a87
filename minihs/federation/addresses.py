# SPDX-License-Identifier: Apache-2.0
"""Which IP addresses may be dialled.

Other servers and our users choose the names we connect to, so an address inside somebody's own network must
never be reached through us (server-side request forgery). The check is made on the address that is really
connected to, which also defeats names that change their address between check and use. Networks listed in
`federation.allow_networks` are exempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

type Address = IPv4Address | IPv6Address
type AnyNetwork = IPv4Network | IPv6Network

_GLOBAL_V6 = IPv6Network("2000::/3")
"""All unicast addresses assigned to the public internet; whatever lies outside is special."""

_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")

# Special although the general rules below would let them pass.
_DENIED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "100.64.0.0/10",  # carrier-grade NAT; some clouds' metadata service
        "192.88.99.0/24",  # 6to4 relays
        "192.0.0.0/24",  # protocol assignments
        "168.63.129.16/32",  # metadata service of Azure, on a public address
    )
)
_DENIED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)


def parse_networks(texts: Iterable[str]) -> tuple[AnyNetwork, ...]:
    """`["127.0.0.0/8", "::1"]` to networks. Raises ValueError."""
    return tuple(ip_network(text, strict=False) for text in texts)


class AddressPolicy:
    """Decides for each address whether it may be dialled."""

    def __init__(self, allow_networks: Iterable[str] = (), *, public: bool = True) -> None:
        """Without `public`, nothing but the allowed networks."""
        self._allowed = parse_networks(allow_networks)
        self._public = public

    def permits(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False  # "fe80::1%eth0" names one of our own interfaces
        if any(address.version == network.version and address in network for network in self._allowed):
            return True
        inner = _unwrapped(address)
        if inner is not None:
            # An IPv4 address in IPv6 clothes goes wherever the inner one goes.
            return self.permits(str(inner))
        return self._public and _is_public(address)


def _unwrapped(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return None


def _is_public(address: Address) -> bool:
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _DENIED_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _DENIED_V6)
