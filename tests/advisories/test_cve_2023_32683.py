# SPDX-License-Identifier: Apache-2.0
"""CVE-2023-32683 (and Synapse #5273, #5134): a redirect, or an address that a page names, led past the list
of forbidden networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.federation.well_known import MAX_BODY, MAX_REDIRECTS
from minihs.testing.hostile import Reply, ScriptedPeer
from tests.advisories.kit import V1, seg, siege

WELL_KNOWN = "/.well-known/matrix/server"


@pytest.mark.parametrize("page", ["redirect", "picture", "oEmbed", "redirected picture"])
async def test_a_page_leads_nowhere_inside(tmp_path: Path, page: str) -> None:
    async with siege(tmp_path, media={"url_previews": True}) as at:
        inner = ScriptedPeer(at.world.internet, "inner.test", port=443)
        inner.host.address = "10.0.0.1"
        at.world.internet.dns.addresses["inner.test"] = ["10.0.0.1"]
        site = ScriptedPeer(at.world.internet, "site.test", clock=at.world.clock, port=443)
        away = Reply(302, headers=[("Location", "https://inner.test/secret")])
        html = {
            "picture": '<meta property="og:image" content="https://inner.test/secret">',
            "oEmbed": '<link rel="alternate" type="application/json+oembed" href="https://inner.test/secret">',
            "redirected picture": '<meta property="og:image" content="/away">',
        }
        site.on("GET", "/away", away)
        if page == "redirect":
            site.on("GET", "/page", away)
        else:
            text = f"<title>x</title>{html[page]}".encode()
            site.on("GET", "/page", Reply(body=text, headers=[("Content-Type", "text/html")]))
        url = seg("https://site.test/page")
        status, _ = await at.alice.ask("GET", f"/_matrix/client/v1/media/preview_url?url={url}")
        assert status == (502 if page == "redirect" else 200)
        assert not inner.requests
        assert at.world.internet.link(at.world["one.test"].host, inner.host).connections == 0


async def test_a_well_known_document_is_small_and_soon_found_or_none(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        front = ScriptedPeer(at.world.internet, "front.test", clock=at.world.clock, port=443)
        away = [("Location", WELL_KNOWN)]
        for reply in (
            Reply(body=b'{"m.server": "inner.test", "x": "' + b"x" * MAX_BODY + b'"}'),
            Reply(body=b" " * 65536, endless=True),
            Reply(body=b"<html>"),
            Reply(json=["inner.test"]),
            Reply(json={"m.server": 5}),
            Reply(json={"m.server": "inner.test/../x"}),
            Reply(302, headers=away),
        ):
            front.requests.clear()
            front.on("GET", WELL_KNOWN, reply)
            at.world["one.test"].server.services.federation.heard_from("front.test")
            await at.alice.ask("GET", "/profile/@x:front.test")
            assert len(front.requests) <= MAX_REDIRECTS + 1
        assert "inner.test" not in at.world.internet.dns.queries
        link = at.world.internet.link(at.world["one.test"].host, front.host)
        assert link.bytes < 20 * MAX_BODY
        assert not at.peer.received(f"{V1}/query/profile")
