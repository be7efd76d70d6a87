# SPDX-License-Identifier: Apache-2.0
"""Which addresses are dialled."""

from __future__ import annotations

import pytest

from minihs.federation.addresses import AddressPolicy

PUBLIC = [
    "1.1.1.1",
    "45.0.0.1",
    "223.255.255.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "::ffff:1.1.1.1",  # IPv4 in IPv6
    "64:ff9b::101:101",  # NAT64 of 1.1.1.1
]

DENIED = [
    "0.0.0.0",  # noqa: S104 -- to be refused
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",  # carrier-grade NAT
    "100.100.100.200",  # a cloud's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # a cloud's metadata on a public address
    "169.254.169.254",  # most clouds' metadata
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",  # the old "compatible" form
    "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",  # NAT64 for local use
    "100::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:a00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # a cloud's metadata
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%1",
    "fec0::1",
    "ff02::1",
    "",
    "localhost",
    "1.1.1",
    "0x7f000001",
    "2130706433",
    "1.1.1.1 ",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_dialled(address: str) -> None:
    assert AddressPolicy().permits(address)


@pytest.mark.parametrize("address", DENIED)
def test_special_addresses_are_not_dialled(address: str) -> None:
    assert not AddressPolicy().permits(address)


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.1.7", True),
        ("192.168.2.7", False),
        ("::1", True),
        ("::2", False),
        ("10.0.0.1", False),
        ("8.8.8.8", True),
        ("fe80::1%lo", False),
    ],
)
def test_allowed_networks_are_exempt_and_nothing_else_is(address: str, permitted: bool) -> None:
    policy = AddressPolicy(["127.0.0.0/8", "192.168.1.0/24", "::1"])
    assert policy.permits(address) is permitted


def test_a_network_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError):
        AddressPolicy(["intranet"])
