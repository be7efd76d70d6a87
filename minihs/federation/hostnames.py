# SPDX-License-Identifier: Apache-2.0
"""Which host names can be looked up and verified at all."""

from __future__ import annotations

import re
from ipaddress import ip_address

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def is_ip(host: str) -> bool:
    """An IP address, without brackets."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_dialable_host(host: str) -> bool:
    """An IP address, or a name that DNS and TLS can deal with. (The grammar of server names allows more,
    "a..b" say.)"""
    if is_ip(host):
        return "%" not in host
    name = host.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    return not labels[-1].isdigit()  # "1.2.3", "256.1.1.1": misread as addresses by some resolvers
