# SPDX-License-Identifier: Apache-2.0
"""Whose request it is, by address, when proxies may stand in between."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_FORWARDED = 20
"""Entries of X-Forwarded-For that are looked at, from the right."""


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def is_trusted(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


def client_address(request: Any) -> str:
    """The peer; or, if the peer is a trusted proxy (or a unix socket), whom the proxies say they serve.

    X-Forwarded-For is read from the right, as far as the addresses are trusted proxies: what stands further
    left is the client's own invention.
    """
    state = request.scope["state"]
    client = request.scope.get("client")
    address: str = client[0] if client else "unix"
    if not state["is_proxy"]:
        return address
    networks = state["trusted_proxies"]
    forwarded = ",".join(request.headers.getlist("X-Forwarded-For")).split(",")[-MAX_FORWARDED:]
    for text in reversed(forwarded):
        try:
            candidate = str(ipaddress.ip_address(text.strip()))
        except ValueError:
            break
        address = candidate
        if not is_trusted(address, networks):
            break
    return address
