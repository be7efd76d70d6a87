# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that are stopped and started again on the same port."""

from __future__ import annotations

import random
import socket

# Below the ephemeral range of Linux: while a server is down, no outgoing connection may be given its port.
FIRST, LAST = 18000, 31999


def free_port() -> int:
    source = random.SystemRandom()
    for _ in range(200):
        port = source.randint(FIRST, LAST)
        if all(_is_free(family, address, port) for family, address in _loopbacks()):
            return port
    raise RuntimeError("no free port found on the loopback interface")


def _loopbacks() -> list[tuple[socket.AddressFamily, str]]:
    both: list[tuple[socket.AddressFamily, str]] = [(socket.AF_INET, "127.0.0.1")]
    if has_ipv6():
        both.append((socket.AF_INET6, "::1"))
    return both


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _is_free(family: socket.AddressFamily, address: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
