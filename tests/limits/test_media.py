# SPDX-License-Identifier: Apache-2.0
"""The bounds of media, each with one more than is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from minihs.media import html_scan, multipart, names, previews, remote, service, shrinker, thumbnails, uploads
from minihs.testing.hostile import Received, Reply, ScriptedPeer
from tests.advisories.kit import V1, seg, siege

MEDIA = "/_matrix/client/v1/media"


def a_file(body: bytes, about: bytes = b"{}") -> Reply:
    head = b"--b\r\nContent-Type: application/json\r\n\r\n" + about + b"\r\n--b\r\n\r\n"
    return Reply(
        body=head + body + b"\r\n--b--\r\n", headers=[("Content-Type", "multipart/mixed; boundary=b")]
    )


async def test_a_file_that_is_still_to_come_is_waited_for_so_long(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        made = (await at.alice.post("/_matrix/media/v1/create"))["content_uri"]
        started = trio.current_time()
        path = f"{MEDIA}/download/{made.removeprefix('mxc://')}?timeout_ms={100 * service.MAX_WAIT_MS}"
        status, answer = await at.alice.ask("GET", path)
        assert (status, answer["errcode"]) == (504, "M_NOT_YET_UPLOADED")
        assert trio.current_time() - started == pytest.approx(service.MAX_WAIT_MS / 1000, abs=1)


async def test_so_many_pictures_are_made_small_at_once_and_the_next_waits() -> None:
    class Workshop:
        """Threads in which work is begun and ended when the test says so."""

        begun = 0
        closing = trio.Event()

        async def run(self, function: Callable[..., Any], *args: object) -> Any:
            self.begun += 1
            await self.closing.wait()
            return shrinker.Verdict.DONE

    class AFile:
        descriptor = 0

        def fileno(self) -> int:
            return 0

    workshop, a_file_of_any_kind = Workshop(), cast(Any, AFile())
    maker = shrinker.Shrinker(workshop)
    verdicts: list[shrinker.Verdict] = []

    async def one() -> None:
        picture = a_file_of_any_kind
        verdicts.append(await maker.shrink(picture, "PNG", 32, 32, "scale", a_file_of_any_kind))

    async with trio.open_nursery() as nursery:
        for _ in range(shrinker.AT_ONCE + 1):
            nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        assert workshop.begun == shrinker.AT_ONCE
        workshop.closing.set()
    assert verdicts == [shrinker.Verdict.DONE] * (shrinker.AT_ONCE + 1)


def test_a_file_name_has_a_length() -> None:
    for more in (0, 1):
        found = names.filename_in(f'attachment; filename="{"x" * (names.MAX_FILENAME + more)}"')
        assert (found is None) == bool(more)


async def test_so_many_files_are_fetched_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_FETCHES", 3)
    async with siege(tmp_path) as at:
        busy, most = 0, 0

        async def slowly(_: Received) -> Reply:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await trio.sleep(5)
            busy -= 1
            return Reply(404, {"errcode": "M_NOT_FOUND"})

        names_of = [f"m{number}.test" for number in range(5)]
        for name in names_of:
            ScriptedPeer(at.world.internet, name, clock=at.world.clock).on("GET", f"{V1}/media/", slowly)

        async with trio.open_nursery() as nursery:
            for name in names_of:
                client = at.world["one.test"].client()
                client.token = at.alice.token
                nursery.start_soon(client.ask, "GET", f"{MEDIA}/download/{name}/x")
        assert most == 3


async def test_a_fetch_has_a_pace_and_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SLOWEST", 1_000_000)
    monkeypatch.setattr(remote, "GRACE_SECONDS", 5.0)
    monkeypatch.setattr(remote, "LONGEST_SECONDS", 8.0)
    async with siege(tmp_path) as at:
        at.peer.on("GET", f"{V1}/media/", Reply(delay=1e6))
        started = trio.current_time()
        status, _ = await at.alice.ask("GET", f"{MEDIA}/download/peer.test/m1?timeout_ms=1000")
        assert status == 502
        assert trio.current_time() - started <= 8.5


async def test_the_part_about_a_file_has_a_size(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        about = b'{"x":"' + b"y" * (multipart.MAX_JSON - 7) + b'"}'
        for number, text in enumerate((about[:-2] + b'"}', about + b"  ")):
            at.peer.on("GET", f"{V1}/media/", a_file(b"{}", text))
            status, _ = await at.alice.ask("GET", f"{MEDIA}/download/peer.test/m{number}")
            assert (status == 200) == (len(text) <= multipart.MAX_JSON)


def test_a_thumbnail_has_a_side() -> None:
    assert max(thumbnails.CROP_SIDES) == thumbnails.MAX_SIDE


async def test_so_many_previews_are_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "AT_ONCE", 2)
    monkeypatch.setattr(uploads, "MAX_PICTURE", 1000)
    async with siege(tmp_path, media={"url_previews": True}) as at:
        site = ScriptedPeer(at.world.internet, "site.test", clock=at.world.clock, port=443)
        busy, most = 0, 0

        async def slowly(_: Received) -> Reply:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await trio.sleep(1)
            busy -= 1
            page = b'<title>x</title><meta property="og:image" content="/picture">'
            return Reply(body=page, headers=[("Content-Type", "text/html")])

        site.on("GET", "/page", slowly)
        picture = Reply(body=b"\x89PNG\r\n\x1a\n" + bytes(1000), headers=[("Content-Type", "image/png")])
        site.on("GET", "/picture", picture)
        answers: list[dict[str, object]] = []

        async def ask(number: int) -> None:
            client = at.world["one.test"].client()
            client.token = at.alice.token
            url = seg(f"https://site.test/page{number}")
            _, answer = await client.ask("GET", f"{MEDIA}/preview_url?url={url}")
            answers.append(answer)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, number)
        assert most == 2
        assert [answer.get("og:title") for answer in answers] == ["x"] * 5
        assert not any("og:image" in answer for answer in answers)  # it is larger than pictures may be


def test_so_many_tags_of_a_page_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_scan, "MAX_TAGS", 5)
    for tags, found in ((3, True), (20, False)):
        page = html_scan.scan("<p>" * tags + "<title>x</title>")
        assert ("x" in str(page)) == found
