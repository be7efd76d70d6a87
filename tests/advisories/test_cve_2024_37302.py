# SPDX-License-Identifier: Apache-2.0
"""CVE-2024-37302 and -37303: strangers without an account had a server fetch and publish any file of any
other, until its disk was full."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.media import remote
from minihs.testing.api import ApiClient
from minihs.testing.hostile import Reply
from tests.advisories.kit import V1, siege

MIB = 1024 * 1024


def a_file(size: int) -> Reply:
    head = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
    return Reply(
        body=head + b"x" * size + b"\r\n--b--\r\n", headers=[("Content-Type", "multipart/mixed; boundary=b")]
    )


async def test_strangers_make_us_fetch_nothing(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        at.peer.on("GET", f"{V1}/media/download/", a_file(10))
        stranger = ApiClient(at.world.internet, "one.test")
        for path in (
            "/_matrix/media/v3/download/peer.test/m1",
            "/_matrix/media/r0/download/peer.test/m1/name.png",
            "/_matrix/media/v3/thumbnail/peer.test/m1?width=9&height=9",
            "/_matrix/client/v1/media/download/peer.test/m1",
            "/_matrix/client/v1/media/thumbnail/peer.test/m1?width=9&height=9",
            "/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fpeer.test%2F",
        ):
            status, answer = await stranger.ask("GET", path)
            assert status in (401, 404), (path, answer)
        assert not at.peer.received(f"{V1}/media/")
        # And another server gets none of a third one's files from us.
        status, _ = await at.ask("GET", f"{V1}/media/download/m1")
        assert status == 404


async def test_one_server_fills_no_more_than_its_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BUCKET_BYTES", 3 * MIB)
    monkeypatch.setattr(remote, "BUCKET_LEAK", 1)
    async with siege(tmp_path) as at:
        at.peer.on("GET", f"{V1}/media/download/", a_file(MIB))
        statuses = []
        for number in range(6):
            path = f"/_matrix/client/v1/media/download/peer.test/m{number}"
            try:
                statuses.append((await at.alice.ask("GET", path))[0])
            except ValueError:  # the file itself, which is no JSON
                statuses.append(200)
        assert statuses == [200, 200, 200, 429, 429, 429]
        await at.unharmed()
