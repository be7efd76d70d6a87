# SPDX-License-Identifier: Apache-2.0
"""Found in a trial, without a number: connections were kept by address, and one that had been verified for
one server was used for another at the same address."""

from __future__ import annotations

from pathlib import Path

from minihs.testing.hostile import ScriptedPeer
from tests.advisories.kit import V1, siege


async def test_a_server_at_anothers_address_must_show_its_own_certificate(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        at.peer.on("GET", f"{V1}/query/profile", {"displayname": "from the peer"})
        assert (await at.alice.get("/profile/@x:peer.test"))["displayname"] == "from the peer"
        # victim.test's name leads to the peer's address: by a hostile name server, say.
        victim = ScriptedPeer(at.world.internet, "victim.test", clock=at.world.clock)
        at.world.internet.dns.addresses["victim.test"] = [at.peer.host.address]
        before = len(at.peer.requests)
        status, answer = await at.alice.ask("GET", "/profile/@x:victim.test")
        assert status in (404, 502), answer
        assert len(at.peer.requests) == before
        assert not victim.requests
        # The connection to the peer is as good as before.
        assert (await at.alice.get("/profile/@y:peer.test"))["displayname"] == "from the peer"
