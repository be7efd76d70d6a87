# SPDX-License-Identifier: Apache-2.0
"""CVE-2024-52805: bodies of multipart/form-data were taken apart in memory, whatever they were sent to."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import trio

from minihs.web.body import WHOLE_BODY_SECONDS
from tests.advisories.kit import V1, siege

MIB = 1024 * 1024
KINDS = [
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "multipart/mixed; boundary=x",
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_form_is_no_request(tmp_path: Path, kind: str) -> None:
    async with siege(tmp_path) as at:
        parts = b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n%b\r\n" % (b"y" * 1000)
        body = parts * 50 + b"--x--\r\n"
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for path in ("/_matrix/client/v3/login", f"{V1}/send/1", "/_matrix/client/v3/register", "/x"):
            method = "PUT" if "send" in path else "POST"
            visitor = await at.visit()
            response = await visitor.request(method, path, headers={"Content-Type": kind}, body=body)
            assert response.status in (400, 401, 404), path
            await visitor.hang_up()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - before < 20 * len(body)
        await at.unharmed()


async def test_a_body_without_end_is_cut_off_by_size(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        visitor = await at.visit()
        head = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: one.test\r\nTransfer-Encoding: chunked\r\n"
        await visitor.send(f"{head}Content-Type: {KINDS[0]}\r\n\r\n".encode())
        link = at.world.internet.link(at.peer.host, at.world["one.test"].host)
        before = link.bytes

        async def send() -> None:
            for _ in range(640):
                await visitor.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            answer = await visitor.everything()
            assert b" 413 " in answer[:20]
            nursery.cancel_scope.cancel()
        assert link.bytes - before < 10 * MIB  # of forty; some is drained, so that the answer arrives
        await at.unharmed()


async def test_a_body_that_never_ends_is_cut_off_by_time(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        visitor = await at.visit()
        started = trio.current_time()
        head = f"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Type: {KINDS[0]}\r\n"
        await visitor.send(f"{head}Content-Length: 5000\r\n\r\n--x".encode())
        assert (await visitor.response()).status == 408
        assert trio.current_time() - started < WHOLE_BODY_SECONDS + 5
        await at.unharmed()
