# SPDX-License-Identifier: Apache-2.0
"""Files are uploaded over the client API (client-server-api, "Content repository")."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.media import uploads
from tests.media.kit import SERVER, V3, MediaHouse, open_media
from tests.web.client.kit import refused
from tests.web.kit import Response

MIB = 1024 * 1024


class TestUpload:
    async def test_what_was_uploaded_comes_back_as_it_was(self, media: MediaHouse) -> None:
        content = bytes(range(256)) * 2000
        media_id = await media.upload(content, "application/x-thing", "thing.bin")
        answer = await media.download(media_id)
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["Content-Type"] == "application/x-thing"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="thing.bin"'
        assert answer.headers["Content-Length"] == str(len(content))

    @pytest.mark.parametrize("prefix", ["/_matrix/media/r0", "/_matrix/media/v1"])
    async def test_the_old_prefixes_still_upload(self, media: MediaHouse, prefix: str) -> None:
        assert (await media.ask("POST", f"{prefix}/upload", body=b"x")).status == 200

    async def test_an_empty_file_is_a_file(self, media: MediaHouse) -> None:
        answer = await media.download(await media.upload(b""))
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"

    async def test_the_largest_file_passes_and_one_byte_more_does_not(self, media: MediaHouse) -> None:
        await media.upload(bytes(MIB))
        answer = await media.ask("POST", f"{V3}/upload", body=bytes(MIB + 1))
        assert refused(answer, 413, "M_TOO_LARGE")
        assert len(media.rows("SELECT * FROM local_media")) == 1
        assert len(media.files()) == 1

    async def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_cap(self, media: MediaHouse) -> None:
        visitor = media.house.visit()
        await visitor.send(
            f"POST {V3}/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(20):
            await visitor.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        assert refused(await visitor.response(), 413, "M_TOO_LARGE")
        assert media.files() == []
        await visitor.hang_up()

    async def test_an_announced_length_above_the_cap_is_refused_before_the_body(
        self, media: MediaHouse
    ) -> None:
        visitor = media.house.visit()
        await visitor.send(
            f"POST {V3}/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n"
            "Content-Length: 99999999999\r\n\r\n".encode()
        )
        assert refused(await visitor.response(), 413, "M_TOO_LARGE")
        await visitor.hang_up()

    async def test_a_client_that_hangs_up_leaves_nothing(self, media: MediaHouse) -> None:
        visitor = media.house.visit()
        head = f"POST {V3}/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n"
        await visitor.send(f"{head}Content-Length: 500000\r\n\r\n".encode() + bytes(400_000))
        for _ in range(100):
            if media.files():
                break
            await trio.sleep(0.01)
        assert media.files()
        await visitor.hang_up()
        await media.house.until_nobody_is_left()
        assert media.files() == []
        assert media.rows("SELECT * FROM local_media") == []

    async def test_the_same_content_is_stored_once(self, media: MediaHouse) -> None:
        first, second = await media.upload(b"same", "text/plain"), await media.upload(b"same", "image/png")
        assert first != second
        assert len(media.files()) == 1
        assert (await media.download(second)).headers["Content-Type"] == "image/png"
        assert await media.media.uploads.delete(first)
        assert (await media.download(second)).body == b"same"
        assert refused(await media.download(first), 404, "M_NOT_FOUND")
        assert await media.media.uploads.delete(second)
        assert media.files() == []
        assert not await media.media.uploads.delete(second)

    async def test_without_a_token_nothing_is_taken(self, media: MediaHouse) -> None:
        for method, path in (("POST", f"{V3}/upload"), ("POST", "/_matrix/media/v1/create")):
            assert refused(await media.ask(method, path, who=None, body=b"x"), 401, "M_MISSING_TOKEN")
        assert refused(
            await media.ask("PUT", f"{V3}/upload/{SERVER}/x", who=None, body=b"x"), 401, "M_MISSING_TOKEN"
        )

    async def test_a_suspended_user_cannot_upload(self, media: MediaHouse) -> None:
        answer = await media.ask("POST", f"{V3}/upload", who="suspended", body=b"x")
        assert refused(answer, 403, "M_USER_SUSPENDED")

    async def test_a_user_who_has_used_up_the_quota_is_refused(self, tmp_path: Path) -> None:
        async with open_media(tmp_path / "q", user_quota_mib=1) as media:
            await media.upload(bytes(MIB - 10))
            answer = await media.ask("POST", f"{V3}/upload", body=bytes(11))
            assert refused(answer, 403, "M_FORBIDDEN")
            await media.upload(bytes(10))
            await media.upload(b"bob's", who="bob")
            assert len(media.files()) == 3

    async def test_too_many_uploads_at_once_are_told_to_wait(
        self, media: MediaHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "MAX_UPLOADS", 0)
        assert refused(await media.ask("POST", f"{V3}/upload", body=b"x"), 429, "M_LIMIT_EXCEEDED")

    async def test_a_full_disk_is_said_and_leaves_nothing(
        self, media: MediaHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("minihs.media.files.DISK_RESERVE", 1 << 60)
        assert (await media.ask("POST", f"{V3}/upload", body=b"x")).status == 507
        assert media.files() == []


class TestAsyncUpload:
    async def create(self, media: MediaHouse, who: str = "alice") -> str:
        answer = await media.ask("POST", "/_matrix/media/v1/create", who=who)
        assert answer.status == 200, answer
        assert abs(answer.json["unused_expires_at"] - media.clock.now_ms() - uploads.UNUSED_MS) < 60_000
        return str(answer.json["content_uri"]).rpartition("/")[2]

    async def fill(
        self, media: MediaHouse, media_id: str, who: str = "alice", server: str = SERVER
    ) -> Response:
        return await media.ask(
            "PUT",
            f"{V3}/upload/{server}/{media_id}?filename=a.txt",
            who=who,
            body=b"late",
            headers={"Content-Type": "text/plain"},
        )

    async def test_an_id_can_be_filled_later_and_once(self, media: MediaHouse) -> None:
        media_id = await self.create(media)
        answer = await self.fill(media, media_id)
        assert (answer.status, answer.json) == (200, {})
        found = await media.download(media_id)
        assert (found.body, found.headers["Content-Type"]) == (b"late", "text/plain; charset=utf-8")
        assert found.headers["Content-Disposition"] == 'inline; filename="a.txt"'
        assert refused(await self.fill(media, media_id), 409, "M_CANNOT_OVERWRITE_MEDIA")

    async def test_only_who_made_the_id_may_fill_it(self, media: MediaHouse) -> None:
        media_id = await self.create(media)
        assert refused(await self.fill(media, media_id, who="bob"), 403, "M_FORBIDDEN")

    async def test_an_id_that_was_not_made_here_cannot_be_filled(self, media: MediaHouse) -> None:
        media_id = await self.create(media)
        assert refused(await self.fill(media, "abc"), 404, "M_NOT_FOUND")
        assert refused(await self.fill(media, media_id, server="other.org"), 404, "M_NOT_FOUND")
        uploaded = await media.upload(b"x")
        assert refused(await self.fill(media, uploaded), 409, "M_CANNOT_OVERWRITE_MEDIA")

    async def test_an_id_expires_when_it_is_not_filled(self, media: MediaHouse) -> None:
        media_id = await self.create(media)
        media.clock.step(uploads.UNUSED_MS + 1)
        assert refused(await self.fill(media, media_id), 404, "M_NOT_FOUND")
        assert refused(await media.download(media_id), 404, "M_NOT_FOUND")
        await media.media.uploads.delete_expired()
        assert media.rows("SELECT * FROM local_media") == []

    async def test_a_user_can_have_so_many_pending_ids(self, media: MediaHouse) -> None:
        ids = [await self.create(media) for _ in range(uploads.MAX_PENDING)]
        answer = await media.ask("POST", "/_matrix/media/v1/create")
        assert refused(answer, 429, "M_LIMIT_EXCEEDED")
        assert answer.json["retry_after_ms"] > 0
        await self.create(media, "bob")
        await self.fill(media, ids[0])
        await self.create(media)

    async def test_who_asks_too_early_is_told_so(self, media: MediaHouse) -> None:
        media_id = await self.create(media)
        started = trio.current_time()
        answer = await media.download(media_id, "?timeout_ms=200")
        assert refused(answer, 504, "M_NOT_YET_UPLOADED")
        assert trio.current_time() - started >= 0.2
        assert refused(await media.download(media_id, "?timeout_ms=0"), 504, "M_NOT_YET_UPLOADED")

    async def test_who_waits_gets_it_when_it_comes(self, media: MediaHouse) -> None:
        media_id = await self.create(media)
        got: list[bytes] = []

        async def wait() -> None:
            got.append((await media.download(media_id)).body)

        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await trio.sleep(0.1)
                assert got == []
                await self.fill(media, media_id)
        assert got == [b"late", b"late"]
