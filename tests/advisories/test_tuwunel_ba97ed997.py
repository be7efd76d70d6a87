# SPDX-License-Identifier: Apache-2.0
"""Tuwunel ba97ed997, af1266af3, 28e08c261: the list of forbidden networks was not asked where files were
fetched from, by push gateways, and by proxies.

That there is one dialler, and nobody goes past it, is held by tests/federation/test_one_dialler.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.testing.hostile import Reply, ScriptedPeer
from tests.advisories.kit import V1, Siege, siege


def put_inside(at: Siege) -> ScriptedPeer:
    inner = ScriptedPeer(at.world.internet, "inner.test", clock=at.world.clock, port=443)
    inner.host.listen(80, inner.serve, tls=False)
    inner.host.listen(8448, inner.serve)
    inner.host.address = "10.0.0.1"
    at.world.internet.dns.addresses["inner.test"] = ["10.0.0.1"]
    return inner


@pytest.mark.parametrize("host", ["inner.test", "10.0.0.1", "[::ffff:a00:1]", "10.0.0.1:8448", "0x0a000001"])
async def test_no_notification_goes_inside(tmp_path: Path, host: str) -> None:
    async with siege(tmp_path) as at:
        inner = put_inside(at)
        pusher: dict[str, Any] = {
            "kind": "http",
            "app_id": "app",
            "pushkey": "key",
            "app_display_name": "x",
            "device_display_name": "x",
            "lang": "en",
            "data": {"url": f"https://{host}/_matrix/push/v1/notify"},
        }
        status, answer = await at.alice.ask("POST", "/pushers/set", pusher)
        assert status in (200, 400), answer
        await at.send(at.event(content={"msgtype": "m.text", "body": "alice"}))
        await trio.sleep(60)
        assert not inner.requests
        assert at.world.internet.link(at.world["one.test"].host, inner.host).connections == 0
        await at.unharmed()


@pytest.mark.parametrize(
    "location", ["https://inner.test/x", "https://10.0.0.1/x", "//10.0.0.1/x", "http://inner.test/"]
)
async def test_no_file_comes_from_inside(tmp_path: Path, location: str) -> None:
    async with siege(tmp_path) as at:
        inner = put_inside(at)
        about = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n"
        body = f"{about}--b\r\nLocation: {location}\r\n\r\n\r\n--b--\r\n".encode()
        kind = [("Content-Type", "multipart/mixed; boundary=b")]
        at.peer.on("GET", f"{V1}/media/download/", Reply(body=body, headers=kind))
        status, _ = await at.alice.ask("GET", "/_matrix/client/v1/media/download/peer.test/m1")
        assert status == 502
        assert not inner.requests
        assert at.world.internet.link(at.world["one.test"].host, inner.host).connections == 0
