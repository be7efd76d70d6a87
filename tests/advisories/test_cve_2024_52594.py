# SPDX-License-Identifier: Apache-2.0
"""CVE-2024-52594: the name of a server led to addresses of the private network behind another server."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.federation.network import Srv
from minihs.testing.hostile import Reply, ScriptedPeer
from tests.advisories.kit import Siege, seg, siege

ADDRESSES = [
    "10.0.0.1", "127.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",  # noqa: S104
    "::1", "::", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "224.0.0.1",
]  # fmt: skip


async def reach_for(at: Siege, name: str) -> None:
    """Everything that makes us call a server of that name."""
    await at.alice.ask("POST", f"/join/!x:{name}?server_name={name}", {})
    await at.alice.ask("GET", f"/directory/room/{seg(f'#x:{name}')}")
    await at.alice.ask("GET", f"/profile/@x:{name}")
    await at.alice.ask("GET", f"/publicRooms?server={name}")
    await at.alice.ask("GET", f"/_matrix/client/v1/media/download/{seg(name)}/m1")
    await at.alice.ask("POST", "/keys/query", {"device_keys": {f"@x:{name}": []}})
    await at.alice.ask("POST", f"/rooms/{at.room}/invite", {"user_id": f"@x:{name}"})
    # and somebody who says they are that server
    fake = ScriptedPeer(at.world.internet, "outside.test", clock=at.world.clock)
    fake.name = name
    status, _ = await fake.request("GET", "one.test", "/_matrix/federation/v1/event/x")
    assert status == 401


def put_inside(at: Siege, address: str) -> ScriptedPeer:
    """A machine at that address, which answers whoever asks."""
    inner = ScriptedPeer(at.world.internet, "inner.test", clock=at.world.clock)
    inner.host.address = address
    for port in (80, 443):
        inner.host.listen(port, inner.serve)
    at.world.internet.dns.addresses["inner.test"] = [address]
    return inner


def untouched(at: Siege, inner: ScriptedPeer) -> bool:
    link = at.world.internet.link(at.world["one.test"].host, inner.host)
    return not inner.requests and link.connections == 0


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_private_address_is_not_dialled(tmp_path: Path, address: str) -> None:
    async with siege(tmp_path) as at:
        inner = put_inside(at, address)
        literal = f"[{address}]" if ":" in address else address
        for name in ("inner.test", "inner.test:8448", literal, f"{literal}:443"):
            await reach_for(at, name)
        assert untouched(at, inner)
        await at.unharmed()


@pytest.mark.parametrize("way", ["well-known", "redirect", "SRV", "old SRV", "second address"])
async def test_nor_by_a_detour(tmp_path: Path, way: str) -> None:
    async with siege(tmp_path) as at:
        inner, dns = put_inside(at, "10.0.0.1"), at.world.internet.dns
        front = ScriptedPeer(at.world.internet, "front.test", clock=at.world.clock, port=443)
        match way:
            case "well-known":
                front.on("GET", "/.well-known/matrix/server", {"m.server": "inner.test:8448"})
            case "redirect":
                location = [("Location", "https://inner.test/.well-known/matrix/server")]
                front.on("GET", "/.well-known/matrix/server", Reply(302, headers=location))
            case "SRV":
                dns.add_srv("_matrix-fed._tcp.front.test", Srv(1, 1, 8448, "inner.test"))
            case "old SRV":
                dns.add_srv("_matrix._tcp.front.test", Srv(1, 1, 8448, "inner.test"))
            case _:
                dns.addresses["front.test"] = ["10.0.0.1", "127.0.0.1"]
        await reach_for(at, "front.test")
        assert untouched(at, inner)
        await at.unharmed()
