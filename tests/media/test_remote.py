# SPDX-License-Identifier: Apache-2.0
"""Files of other servers: fetched once, kept within bounds, whatever the other server answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.media import remote
from minihs.media.multipart import boundary_of
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from minihs.testing.servers import cluster
from tests.media.kit import moving_picture, open_media, opened, picture
from tests.media.peers import (
    DOWNLOAD,
    LEGACY,
    UNKNOWN,
    V1,
    V3,
    ask,
    download,
    framed,
    multipart,
    stage,
    upload,
)

MIB = 1024 * 1024


async def test_a_file_travels_from_one_server_to_another(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        content = bytes(range(256)) * 3000
        server, media_id = await upload(alice, content, "image/png", "%C3%BC.png")
        for _ in range(2):
            got = await download(bob, server, media_id)
            assert (got.status, got.body) == (200, content)
            assert got.headers["content-type"] == "image/png"
            assert got.headers["content-disposition"] == "inline; filename*=utf-8''%C3%BC.png"
        await world.stop("one.test")
        assert (await download(bob, server, media_id)).body == content


async def test_a_thumbnail_of_another_servers_picture_is_made_here(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        server, media_id = await upload(alice, picture((500, 400)), "image/png")
        got = await ask(bob, "GET", f"{V1}/thumbnail/{server}/{media_id}?width=90&height=90&method=crop")
        assert (got.status, opened(got.body).size) == (200, (96, 96))
        assert got.headers["content-disposition"] == 'inline; filename="thumbnail.jpg"'


async def test_a_file_that_is_still_to_come_is_waited_for_across_servers(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        created = await alice.post("/_matrix/media/v1/create")
        server, _, media_id = created["content_uri"].removeprefix("mxc://").partition("/")
        got = await download(bob, server, media_id, "?timeout_ms=1000")
        assert got.refused(504, "M_NOT_YET_UPLOADED")
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                await trio.sleep(5)
                await ask(alice, "PUT", f"{V3}/upload/{server}/{media_id}", b"late")

            nursery.start_soon(fill)
            assert (await download(bob, server, media_id)).body == b"late"


async def test_what_the_other_server_says_about_the_file_is_kept(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on(
            "GET",
            DOWNLOAD,
            multipart(
                b"content", Content_Type="text/html", Content_Disposition="inline; filename*=utf-8''%e2%82%ac"
            ),
        )
        got = await it.get("abc")
        assert (got.status, got.body) == (200, b"content")
        assert got.headers["content-type"] == "text/html; charset=utf-8"
        assert got.headers["content-disposition"] == "attachment; filename*=utf-8''%E2%82%AC"
        assert "timeout_ms=20000" in it.asked()[0].uri
        assert it.asked()[0].headers["authorization"].startswith("X-Matrix")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": "text/html\tx"},
        {"Content_Type": "a" * 300 + "/b"},
        {"Content_Type": "\xff/\xff"},
        {"Content_Type": "nonsense"},
    ],
)
async def test_types_that_are_none_become_bytes(tmp_path: Path, headers: dict[str, str]) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, multipart(b"x", **headers))
        got = await it.get("abc")
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["content-disposition"] == "attachment"


async def test_a_server_without_the_signed_endpoint_is_asked_the_old_way(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, UNKNOWN)
        it.peer.on(
            "GET",
            LEGACY,
            Reply(
                body=b"old",
                headers=[("Content-Type", "image/gif"), ("Content-Disposition", 'inline; filename="a.gif"')],
            ),
        )
        got = await it.get("abc")
        assert (got.status, got.body) == (200, b"old")
        assert got.headers["content-type"] == "image/gif"
        (request,) = it.asked(LEGACY)
        assert request.path == f"{LEGACY}peer.test/abc"
        assert "allow_remote=false" in request.uri
        assert "authorization" not in request.headers


async def test_a_file_that_the_other_server_does_not_have_is_not_found_and_not_asked_for_again(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, Reply(404, {"errcode": "M_NOT_FOUND", "error": "No."}))
        for _ in range(3):
            assert (await it.get("abc")).refused(404, "M_NOT_FOUND")
        assert len(it.asked()) == 1
        assert it.asked(LEGACY) == []
        await trio.sleep(remote.REMEMBER_MISSING + 1)
        it.peer.on("GET", DOWNLOAD, multipart(b"now"))
        assert (await it.get("abc")).body == b"now"


async def test_a_server_that_is_down_is_not_asked_again_and_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.host.down()
        for _ in range(5):
            assert (await it.get("abc")).refused(502, "M_UNKNOWN")
        refused = it.world.internet.link(it.server.host, it.peer.host).refused
        assert refused <= 2
        it.peer.host.up()
        it.peer.on("GET", DOWNLOAD, multipart(b"back"))
        await trio.sleep(remote.REMEMBER_FAILED + 1)
        assert (await it.get("abc")).body == b"back"


async def test_fifty_who_ask_at_once_cost_one_fetch(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:

        async def slowly(_: Received) -> Reply:
            await trio.sleep(2)
            return multipart(b"shared")

        it.peer.on("GET", DOWNLOAD, slowly)
        bodies: list[bytes] = []

        async def one() -> None:
            bodies.append((await it.get("abc")).body)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
        assert bodies == [b"shared"] * 50
        assert len(it.asked()) == 1


async def test_a_fetch_goes_on_when_the_client_hangs_up(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:

        async def slowly(_: Received) -> Reply:
            await trio.sleep(5)
            return multipart(b"finished")

        it.peer.on("GET", DOWNLOAD, slowly)
        with trio.move_on_after(1):
            await it.get("abc")
        await trio.sleep(10)
        assert it.rows("SELECT size FROM remote_media") == [(8,)]


async def test_of_one_server_a_few_files_come_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        now, most = 0, 0

        async def count(_: Received) -> Reply:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await trio.sleep(1)
            now -= 1
            return multipart(b"x")

        it.peer.on("GET", DOWNLOAD, count)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(it.get, f"m{number}")
        assert most == remote.MAX_FETCHES_PER_SERVER


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


# -- what we give to other servers --


async def test_a_file_is_given_to_servers_that_sign(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        _, media_id = await upload(it.alice, b"our file", "image/png", "a.png")
        status, _ = await it.peer.request("GET", "one.test", f"{DOWNLOAD}{media_id}", headers=[])
        assert status == 401
        status, _ = await it.peer.request("GET", "one.test", f"{DOWNLOAD}{media_id}")
        assert status == 200
        for wrong, refusal in (
            ("nothing", (404, "M_NOT_FOUND")),
            ("..%2Fx", (400, "M_INVALID_PARAM")),
            (f"{media_id}/x", (404, "M_UNRECOGNIZED")),
        ):
            status, answer = await it.peer.request("GET", "one.test", f"{DOWNLOAD}{wrong}")
            assert (status, answer["errcode"]) == refusal


async def test_a_file_is_given_in_two_parts_json_first(tmp_path: Path) -> None:
    async with open_media(tmp_path) as media:
        media_id = await media.upload(b"--content\r\n", "text/html", "a b.html")
        answer = await media.ask(
            "GET",
            f"{DOWNLOAD}{media_id}",
            who=None,
            headers={"Authorization": 'X-Matrix origin="other.example",sig="good"'},
        )
        boundary = boundary_of(answer.headers["Content-Type"])
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(len(answer.body))
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert (
            answer.body
            == (
                f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
                f"--{boundary}\r\nContent-Type: text/html\r\n"
                'Content-Disposition: attachment; filename="a b.html"\r\n\r\n'
                f"--content\r\n\r\n--{boundary}--\r\n"
            ).encode()
        )


async def test_other_servers_files_are_not_given_on(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, multipart(b"content"))
        await it.get("abc")
        status, answer = await it.peer.request("GET", "one.test", f"{DOWNLOAD}abc")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_thumbnails_are_given_to_servers_that_sign(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        _, media_id = await upload(it.alice, picture((500, 400)), "image/png")
        base = f"/_matrix/federation/v1/media/thumbnail/{media_id}"
        status, _ = await it.peer.request("GET", "one.test", f"{base}?width=32&height=32")
        assert status == 200
        status, answer = await it.peer.request("GET", "one.test", base)
        assert (status, answer["errcode"]) == (400, "M_MISSING_PARAM")
        _, text_id = await upload(it.alice, b"no picture", "image/png")
        status, answer = await it.peer.request(
            "GET", "one.test", f"/_matrix/federation/v1/media/thumbnail/{text_id}?width=32&height=32"
        )
        assert (status, answer["errcode"]) == (400, "M_UNKNOWN")


async def test_an_animation_arrives_whole_and_its_thumbnail_stands_still(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.peer.on("GET", DOWNLOAD, multipart(moving_picture(), Content_Type="image/gif"))
        assert opened((await it.get("abc")).body).n_frames == 3  # type: ignore[attr-defined]
        got = await ask(it.alice, "GET", f"{V1}/thumbnail/peer.test/abc?width=320&height=240&animated=false")
        assert got.headers["content-type"] == "image/jpeg"
