# SPDX-License-Identifier: Apache-2.0
"""Files of other servers stay within bounds, whatever the other server answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.media import remote
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from tests.media.peers import (
    DOWNLOAD,
    LEGACY,
    UNKNOWN,
    download,
    framed,
    multipart,
    stage,
    upload,
)

MIB = 1024 * 1024


# -- sizes, speeds and budgets --


async def test_the_largest_file_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    async with stage(tmp_path, max_remote_mib=1) as it:
        it.peer.on("GET", DOWNLOAD + "fits", multipart(bytes(MIB)))
        it.peer.on("GET", DOWNLOAD + "over", multipart(bytes(MIB + 1)))
        assert len((await it.get("fits")).body) == MIB
        for _ in range(2):
            assert (await it.get("over")).refused(502, "M_TOO_LARGE")
        assert len(it.asked(DOWNLOAD + "over")) == 1
        assert len(it.files()) == 1


async def test_a_file_announced_as_too_large_is_not_begun(tmp_path: Path) -> None:
    async with stage(tmp_path, max_remote_mib=1) as it:
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Length: 99999999999\r\n"
        )
        it.peer.on("GET", DOWNLOAD, Reply(raw=head + b"\r\n--b\r\n\r\n{}\r\n--b\r\n\r\nxxx"))
        assert (await it.get("abc")).refused(502, "M_TOO_LARGE")
        assert it.files() == []


async def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    async with stage(tmp_path, max_remote_mib=1) as it:
        boundary = [("Content-Type", "multipart/mixed; boundary=b")]
        for media_id, body in {
            "content": b"--b\r\n\r\n{}\r\n--b\r\n\r\n" + b"x" * 5000,
            "preamble": b"x" * 5000,
            "headers": b"--b\r\nA: b\r\n" + b"A: b\r\n" * 5000,
        }.items():
            it.peer.on("GET", DOWNLOAD + media_id, Reply(body=body, headers=boundary, endless=True))
        it.peer.on("GET", DOWNLOAD + "old", UNKNOWN)
        it.peer.on("GET", LEGACY, Reply(body=b"x" * 5000, endless=True))
        assert (await it.get("content")).status == 502
        assert (await it.get("preamble")).refused(502, "M_UNKNOWN")
        assert (await it.get("headers")).refused(502, "M_UNKNOWN")
        assert (await it.get("old")).refused(502, "M_TOO_LARGE")
        assert it.files() == []


async def test_a_json_part_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, framed(b"x", b" " * 70_000, {}))
        assert (await it.get("abc")).refused(502, "M_UNKNOWN")


async def test_a_server_that_dribbles_is_given_up(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        reply = multipart(b"x" * 1000)
        assert reply.body is not None

        async def dribble(stream: trio.abc.Stream, *_: object) -> None:
            await stream.receive_some(10_000)
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=frontier\r\n\r\n"
            )
            for byte in reply.body or b"":
                await trio.sleep(10)
                await stream.send_all(bytes([byte]))

        it.peer.host.listen(8448, dribble)
        started = trio.current_time()
        assert (await it.get("abc")).refused(502, "M_UNKNOWN")
        assert trio.current_time() - started < 2 * remote.GRACE_SECONDS
        assert it.files() == []


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, Reply(delay=1e6))
        started = trio.current_time()
        assert (await it.get("abc")).status == 502
        assert trio.current_time() - started < 2 * remote.GRACE_SECONDS


async def test_a_server_fills_its_bucket_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BUCKET_BYTES", 5 * MIB - 1000)
    monkeypatch.setattr(remote, "BUCKET_LEAK", 1024)
    async with stage(tmp_path) as it:
        other = ScriptedPeer(it.world.internet, "other.test", clock=it.world.clock)
        for peer in (it.peer, other):
            peer.on("GET", DOWNLOAD, multipart(bytes(MIB)))
        statuses = [(await it.get(f"m{number}")).status for number in range(8)]
        assert statuses == [200] * 5 + [429] * 3
        assert (await download(it.alice, "other.test", "m0")).status == 200
        await trio.sleep(3600)
        assert (await it.get("m7")).status == 200


async def test_the_cache_stays_within_its_budget_and_the_least_recently_used_goes(tmp_path: Path) -> None:
    async with stage(tmp_path, max_remote_mib=1, remote_cache_mib=3) as it:

        def content(received: Received) -> Reply:
            return multipart(received.path[-2:].encode() * (MIB // 4))

        it.peer.on("GET", DOWNLOAD, content)
        for number in range(6):
            assert (await it.get(f"m{number}")).status == 200
            await trio.sleep(7200)
        # m0 is used again, so m1 is the oldest when room has to be made.
        assert len(it.asked()) == 6
        assert (await it.get("m0")).status == 200
        await trio.sleep(7200)
        assert (await it.get("m6")).status == 200
        kept = {media_id for (media_id,) in it.rows("SELECT media_id FROM remote_media")}
        assert "m0" in kept
        assert "m6" in kept
        assert "m1" not in kept
        size = sum(path.stat().st_size for path in it.files())
        assert size == it.rows("SELECT sum(size) FROM remote_media")[0][0] <= 3 * MIB
        assert (await it.get("m1")).body == b"m1" * (MIB // 4)


async def test_a_file_that_is_ours_as_well_survives_the_cache(tmp_path: Path) -> None:
    async with stage(tmp_path, max_remote_mib=1, remote_cache_mib=1) as it:
        content = b"a" * (MIB // 2)
        server, media_id = await upload(it.alice, content, "text/plain")
        it.peer.on("GET", DOWNLOAD + "same", multipart(content))
        it.peer.on("GET", DOWNLOAD + "other", multipart(b"b" * MIB))
        await it.get("same")
        await trio.sleep(10)
        await it.get("other")
        assert "same" not in {row[0] for row in it.rows("SELECT media_id FROM remote_media")}
        assert (await download(it.alice, server, media_id)).body == content


async def test_a_cached_file_that_is_gone_is_fetched_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, multipart(b"content"))
        await it.get("abc")
        it.files()[0].unlink()
        assert (await it.get("abc")).body == b"content"
        assert len(it.asked()) == 2


# -- answers that are wrong --

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=b\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"", headers=[("Content-Type", "multipart/mixed; boundary=b")]),
        Reply(body=b"x", headers=[("Content-Type", "multipart/mixed")]),
        Reply(body=b"just the file", headers=[("Content-Type", "image/png")]),
        Reply(json={"not": "multipart"}),
        Reply(body=b"--b\r\n\r\n{}\r\n--b--", headers=[("Content-Type", "multipart/mixed; boundary=b")]),
        Reply(
            body=b"--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--",
            headers=[("Content-Type", "multipart/mixed; boundary=b")],
        ),
        Reply(
            body=b"--b\r\n\r\n{}\r\n--b\r\n\r\ncut sho",
            headers=[("Content-Type", "multipart/mixed; boundary=b")],
        ),
        Reply(raw=HEAD + b"Content-Length: 100\r\n\r\n--b\r\n\r\n{}\r\n--b\r\n\r\nshorter"),
        Reply(raw=HEAD + b"Content-Length: 25\r\n\r\n--b\r\n\r\n{}\r\n--b\r\n\r\nlonger than that\r\n--b--"),
        Reply(raw=HEAD + b"Content-Length: -1\r\n\r\n--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b--"),
        Reply(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n--b\r\n\r\nzz\r\n"),
        Reply(raw=b"garbage"),
        Reply(raw=b""),
        Reply(500, {"errcode": "M_UNKNOWN"}),
        Reply(200, body=b"\x00" * 100),
        Reply(302, {}, headers=[("Location", "https://elsewhere.test/")]),
    ],
)
async def test_an_answer_that_is_wrong_leaves_nothing(tmp_path: Path, reply: Reply) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, reply)
        assert (await it.get("abc")).refused(502, "M_UNKNOWN")
        assert it.files() == []
        assert it.rows("SELECT * FROM remote_media") == []


@pytest.mark.parametrize(
    ("reply", "status", "errcode"),
    [
        (Reply(404, {"errcode": "M_NOT_FOUND"}), 404, "M_NOT_FOUND"),
        (Reply(504, {"errcode": "M_NOT_YET_UPLOADED"}), 504, "M_NOT_YET_UPLOADED"),
        (Reply(502, {"errcode": "M_TOO_LARGE"}), 502, "M_TOO_LARGE"),
        (Reply(413, {"errcode": "M_TOO_LARGE"}), 502, "M_TOO_LARGE"),
        (Reply(429, {"errcode": "M_LIMIT_EXCEEDED"}), 429, "M_LIMIT_EXCEEDED"),
        (Reply(403, {"errcode": "M_FORBIDDEN"}), 502, "M_UNKNOWN"),
    ],
)
async def test_a_refusal_is_handed_on_in_our_words(
    tmp_path: Path, reply: Reply, status: int, errcode: str
) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, reply)
        assert (await it.get("abc")).refused(status, errcode)


# -- redirects --


async def redirecting(tmp_path: Path, location: str) -> bool:
    """Whether the file came, after a redirect to `location`."""
    async with stage(tmp_path) as it:
        cdn = it.world.internet.host("cdn.test")
        files = ScriptedPeer(it.world.internet, "files.test", clock=it.world.clock, port=443)
        inner = ScriptedPeer(it.world.internet, "inner.test", clock=it.world.clock, port=443)
        it.world.internet.dns.addresses["inner.test"] = ["10.0.0.1"]
        inner.host.address = "10.0.0.1"
        assert cdn
        png = Reply(body=b"from elsewhere", headers=[("Content-Type", "image/png")])
        files.on("GET", "/file", png)
        inner.on("GET", "/file", png)
        files.on("GET", "/again", Reply(307, headers=[("Location", "/file?x=1")]))
        files.on("GET", "/loop", Reply(302, headers=[("Location", "/loop")]))
        files.on("GET", "/inner", Reply(302, headers=[("Location", "https://inner.test/file")]))
        files.on("GET", "/gone", Reply(404))
        files.on("GET", "/nowhere", Reply(302))
        files.on("GET", "/bad", Reply(302, headers=[("Location", "https://[")]))
        files.on("GET", "/packed", Reply(body=b"x", headers=[("Content-Encoding", "gzip")]))
        files.on("GET", "/garbage", Reply(raw=b"garbage"))
        it.peer.on("GET", DOWNLOAD, multipart(b"ignored", Location=location, Content_Type="text/html"))
        got = await it.get("abc")
        if got.status != 200:
            assert got.refused(502, "M_UNKNOWN") or got.refused(404, "M_NOT_FOUND")
            assert it.files() == []
            assert inner.requests == []
            assert len(files.requests) <= remote.MAX_REDIRECTS + 1
            return False
        assert got.body == b"from elsewhere"
        assert got.headers["content-type"] == "image/png"
        assert all("authorization" not in request.headers for request in files.requests)
        return True


@pytest.mark.parametrize("location", ["https://files.test/file", "https://files.test/again"])
async def test_a_redirect_is_followed_without_our_signature(tmp_path: Path, location: str) -> None:
    assert await redirecting(tmp_path, location)


@pytest.mark.parametrize(
    "location",
    [
        "https://inner.test/file",
        "https://files.test/inner",
        "https://10.0.0.1/file",
        "https://127.0.0.1/file",
        "https://[::1]/file",
        "https://[::ffff:10.0.0.1]/file",
        "https://files.test/loop",
        "https://files.test/gone",
        "https://files.test/nowhere",
        "https://files.test/bad",
        "https://files.test/packed",
        "https://files.test/garbage",
        "https://nowhere.test/file",
        "https://user:password@files.test/file",
        "ftp://files.test/file",
        "file:///etc/passwd",
        "//files.test/file",
        "https://files.test:99999/file",
        "https://files.test/fi le",
        "https://",
        "x" * 5000,
    ],
)
async def test_a_redirect_to_where_it_must_not_go_is_not_followed(tmp_path: Path, location: str) -> None:
    assert not await redirecting(tmp_path, location)
