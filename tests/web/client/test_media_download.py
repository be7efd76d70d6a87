# SPDX-License-Identifier: Apache-2.0
"""Files are downloaded over the client API (client-server-api, "Content repository")."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.media.names import INLINE_TYPES
from tests.media.kit import SERVER, V1, V3, MediaHouse, open_media, picture
from tests.web.client.kit import refused

MIB = 1024 * 1024


class TestDownload:
    async def test_a_login_is_needed(self, media: MediaHouse) -> None:
        media_id = await media.upload(b"x")
        assert refused(await media.download(media_id, who=None), 401, "M_MISSING_TOKEN")
        answer = await media.ask("GET", f"{V1}/thumbnail/{SERVER}/{media_id}?width=1&height=1", who=None)
        assert refused(answer, 401, "M_MISSING_TOKEN")

    async def test_what_does_not_exist_is_not_found(self, media: MediaHouse) -> None:
        assert refused(await media.download("abc"), 404, "M_NOT_FOUND")

    async def test_a_file_that_was_lost_is_not_found(self, media: MediaHouse) -> None:
        media_id = await media.upload(b"x")
        media.files()[0].unlink()
        assert refused(await media.download(media_id), 404, "M_NOT_FOUND")

    @pytest.mark.parametrize(
        "path",
        [
            f"{SERVER}/..",
            f"{SERVER}/%2e%2e%2f%2e%2e%2fsigning.key",
            f"{SERVER}/..%2f..%2fsigning.key",
            f"{SERVER}/a%00b",
            f"{SERVER}/%c3%a4",
            f"{SERVER}/{'x' * 256}",
            f"{SERVER}/a.b",
            "../x",
            "%2e%2e/x",
            "..%2f..%2fetc/passwd",
            "a%2fb/x",
            "a%00b/x",
            "[::1%25eth0]/x",
            "example.org:/x",
            "example.org:65536/x",
            "example.org:abc/x",
            "example.org:-1/x",
            f"{'x' * 300}/x",
            "user@example.org/x",
            "exa%20mple.org/x",
            "[::1/x",
            "-/..",
        ],
    )
    async def test_names_that_are_none_are_refused_at_the_border(self, media: MediaHouse, path: str) -> None:
        for endpoint, query in (("download", ""), ("thumbnail", "?width=1&height=1")):
            answer = await media.ask("GET", f"{V1}/{endpoint}/{path}{query}")
            assert refused(answer, 400, "M_INVALID_PARAM"), answer
        assert media.files() == []

    async def test_browsers_are_kept_from_running_it(self, media: MediaHouse) -> None:
        headers = (await media.download(await media.upload(b"<script>", "text/html"))).headers
        assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'; script-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Content-Disposition"] == "attachment"
        assert headers["Cache-Control"].startswith("private")

    @pytest.mark.parametrize(
        "content_type",
        [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "application/pdf",
            "application/javascript",
            "text/plain, text/html",
            "image/png\tx",
            "nonsense",
            "",
        ],
    )
    async def test_other_types_are_never_shown_in_place(self, media: MediaHouse, content_type: str) -> None:
        media_id = await media.upload(b"<svg onload=alert(1)>", content_type, "a.svg")
        answer = await media.download(media_id)
        assert answer.headers["Content-Disposition"].startswith("attachment;")

    @pytest.mark.parametrize("content_type", sorted(INLINE_TYPES))
    async def test_types_of_the_list_are_shown_in_place(self, media: MediaHouse, content_type: str) -> None:
        answer = await media.download(await media.upload(b"x", content_type.upper()))
        assert answer.headers["Content-Disposition"] == "inline"
        assert answer.headers["Content-Type"].lower().startswith(content_type)

    @pytest.mark.parametrize(
        ("name", "written"),
        [
            ("plain name.txt", 'filename="plain name.txt"'),
            ("ünï.txt", "filename*=utf-8''%C3%BCn%C3%AF.txt"),
            ('a"b\\c.txt', "filename*=utf-8''a%22b%5Cc.txt"),
            ("a\r\nSet-Cookie: x=1", "filename*=utf-8''aSet-Cookie%3A%20x%3D1"),
            ("../../etc/passwd", "filename*=utf-8''..%2F..%2Fetc%2Fpasswd"),
            ("💥", "filename*=utf-8''%F0%9F%92%A5"),
        ],
    )
    async def test_a_file_name_is_written_so_that_it_stays_one(
        self, media: MediaHouse, name: str, written: str
    ) -> None:
        answer = await media.download(await media.upload(b"x", None, name))
        assert answer.headers["Content-Disposition"] == f"attachment; {written}"
        assert "Set-Cookie" not in answer.headers

    async def test_a_name_in_the_path_replaces_the_files_own(self, media: MediaHouse) -> None:
        media_id = await media.upload(b"x", "image/png", "a.png")
        answer = await media.download(media_id, "/b%2Fc.png")
        assert answer.headers["Content-Disposition"] == "inline; filename*=utf-8''b%2Fc.png"

    async def test_a_part_can_be_asked_for(self, media: MediaHouse) -> None:
        media_id = await media.upload(b"0123456789")
        for wanted, content, said in [
            ("bytes=0-3", b"0123", "bytes 0-3/10"),
            ("bytes=8-", b"89", "bytes 8-9/10"),
            ("bytes=8-100", b"89", "bytes 8-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=-30", b"0123456789", "bytes 0-9/10"),
        ]:
            answer = await media.download(media_id, headers={"Range": wanted})
            assert (answer.status, answer.body) == (206, content), wanted
            assert answer.headers["Content-Range"] == said
        for wanted in ("bytes=10-", "bytes=-0"):
            answer = await media.download(media_id, headers={"Range": wanted})
            assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */10")
        for wanted in ("bytes=5-2", "bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"):
            answer = await media.download(media_id, headers={"Range": wanted})
            assert (answer.status, answer.body) == (200, b"0123456789"), wanted

    async def test_what_the_client_has_is_not_sent_again(self, media: MediaHouse) -> None:
        media_id = await media.upload(b"0123456789")
        tag = (await media.download(media_id)).headers["ETag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            answer = await media.download(media_id, headers={"If-None-Match": known})
            assert (answer.status, answer.body) == (304, b"")
        assert (await media.download(media_id, headers={"If-None-Match": '"x"'})).status == 200
        ranged = {"Range": "bytes=0-1", "If-Range": '"x"'}
        assert (await media.download(media_id, headers=ranged)).status == 200
        assert (await media.download(media_id, headers={**ranged, "If-Range": tag})).status == 206

    async def test_head_tells_about_the_file_only(self, media: MediaHouse) -> None:
        media_id = await media.upload(b"0123456789", "image/png")
        answer = await media.ask("HEAD", f"{V1}/download/{SERVER}/{media_id}")
        assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "10")

    async def test_a_client_that_stops_reading_does_not_keep_the_file_open(self, media: MediaHouse) -> None:
        media_id = await media.upload(bytes(MIB))
        visitor = media.house.visit()
        await visitor.send(
            f"GET {V1}/download/{SERVER}/{media_id} HTTP/1.1\r\nHost: x\r\n"
            "Authorization: Bearer alice\r\n\r\n".encode()
        )
        await visitor.stream.receive_some(1000)
        await visitor.hang_up()
        await media.house.until_nobody_is_left()
        assert media.open_files() == []


class TestOldEndpoints:
    async def test_they_are_frozen(self, media: MediaHouse) -> None:
        media_id = await media.upload(picture())
        for prefix in ("r0", "v1", "v3"):
            for path in (
                f"download/{SERVER}/{media_id}",
                f"download/{SERVER}/{media_id}/name.png",
                f"thumbnail/{SERVER}/{media_id}?width=10&height=10",
                "download/elsewhere.test/abc",
            ):
                answer = await media.ask("GET", f"/_matrix/media/{prefix}/{path}")
                assert refused(answer, 404, "M_NOT_FOUND"), path

    async def test_they_answer_when_they_are_allowed(self, tmp_path: Path) -> None:
        async with open_media(tmp_path, allow_legacy=True) as media:
            content = picture()
            media_id = await media.upload(content, "image/png")
            base = f"/_matrix/media/r0/download/{SERVER}/{media_id}"
            answer = await media.ask("GET", base, who=None)
            assert (answer.status, answer.body) == (200, content)
            assert "Content-Security-Policy" in answer.headers
            answer = await media.ask("GET", f"{base}/x.png", who=None)
            assert answer.headers["Content-Disposition"] == 'inline; filename="x.png"'
            answer = await media.ask(
                "GET", f"{V3}/thumbnail/{SERVER}/{media_id}?width=10&height=10&method=crop", who=None
            )
            assert answer.status == 200
            answer = await media.ask("GET", f"{V3}/download/elsewhere.test/abc?allow_remote=false", who=None)
            assert refused(answer, 404, "M_NOT_FOUND")

    async def test_the_limit_on_uploads_is_told_under_both_paths(self, media: MediaHouse) -> None:
        for path in (f"{V1}/config", f"{V3}/config", "/_matrix/media/r0/config"):
            answer = await media.ask("GET", path)
            assert answer.json == {"m.upload.size": MIB}
            assert refused(await media.ask("GET", path, who=None), 401, "M_MISSING_TOKEN")

    async def test_previews_are_off(self, media: MediaHouse) -> None:
        for path in (f"{V1}/preview_url", f"{V3}/preview_url"):
            answer = await media.ask("GET", f"{path}?url=https://matrix.org/")
            assert refused(answer, 404, "M_UNRECOGNIZED")
