# SPDX-License-Identifier: Apache-2.0
"""CVE-2021-41281: the id of another server's file was used as a file name, and led out of the folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from minihs.testing.hostile import Reply
from tests.advisories.kit import V1, siege

IDS = [
    "..", "../..", "../../../../etc/passwd", "..\\..\\x", "/etc/passwd", "a/b", "a\0b", "%2e%2e%2fx",
    "x" * 300,
    "~root", ".", "a b", "\u202e", "$(id)",
]  # fmt: skip
SERVERS = [
    "..", "../x", "peer.test/..", "peer.test:abc", "peer.test:0x1", "peer.test:65536", "peer.test:-1",
    "[::1%25eth0]",
    "[fe80::1%eth0]", "peer.test#x", "user@peer.test", "peer.test\0", "", " ", "x" * 256, "a..b",
    "peer.test:",
]  # fmt: skip


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if ".db" not in path.name}


@pytest.mark.parametrize("prefix", ["/_matrix/client/v1/media", "/_matrix/media/v3"])
async def test_no_id_leads_anywhere(tmp_path: Path, prefix: str) -> None:
    async with siege(tmp_path) as at:
        part = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n\r\nevil\r\n--b--\r\n"
        header = [("Content-Type", "multipart/mixed; boundary=b")]
        at.peer.on("GET", f"{V1}/media/", Reply(body=part.encode(), headers=header))
        before = files(tmp_path)
        for server, media_id in [
            *(("peer.test", name) for name in IDS),
            *((name, "abc") for name in SERVERS),
        ]:
            for verb in ("download", "thumbnail"):
                path = f"{prefix}/{verb}/{quote(server, safe='')}/{quote(media_id, safe='')}?width=9&height=9"
                status, answer = await at.alice.ask("GET", path)
                assert status in (400, 404), (server, media_id, answer)
        after = files(tmp_path)
        assert {path for path in after - before if "media" not in path.parts} == set()
        for name in IDS:  # and of those who ask us
            status, _ = await at.ask("GET", f"{V1}/media/download/{quote(name, safe='')}")
            assert status in (400, 404)
        assert not at.peer.received(f"{V1}/media/")
