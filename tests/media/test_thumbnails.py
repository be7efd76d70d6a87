# SPDX-License-Identifier: Apache-2.0
"""Thumbnails (client-server-api, "Thumbnails"), of good pictures and of bad ones."""

from __future__ import annotations

import io
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import trio
from PIL import Image

from minihs.matrix.errors import MatrixError
from minihs.media import shrink, shrinker, thumbnails
from minihs.media.shrinker import picture_format
from minihs.media.thumbnails import Size, wanted_size
from minihs.runtime import InlineThreads, WorkerThreads
from minihs.testing.clock import virtual_runtime
from tests.media.kit import MediaHouse, encoded, moving_picture, open_media, opened, picture, png_bomb
from tests.web.client.kit import refused


@pytest.fixture
async def media(tmp_path: Path) -> AsyncIterator[MediaHouse]:
    async with open_media(tmp_path) as house:
        yield house


# -- sizes --


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((32, 32, "crop"), (32, 32)),
        ((96, 96, "crop"), (96, 96)),
        ((1, 1, "crop"), (32, 32)),
        ((33, 33, "crop"), (96, 96)),
        ((200, 100, "crop"), (320, 160)),
        ((100, 299, "crop"), (108, 320)),
        ((9999, 9999, "crop"), (4096, 4096)),
        ((9999, 1, "crop"), (4096, 1)),
        ((320, 240, "scale"), (320, 240)),
        ((640, 480, "scale"), (640, 480)),
        ((800, 600, "scale"), (800, 600)),
        ((1, 1, "scale"), (320, 240)),
        ((320, 241, "scale"), (640, 480)),
        ((801, 10, "scale"), (1600, 1200)),
        ((10**15, 1, "scale"), (4096, 4096)),
    ],
)
def test_a_request_is_answered_with_the_next_size_up(
    asked: tuple[int, int, str], made: tuple[int, int]
) -> None:
    assert wanted_size(*asked) == Size(*made, asked[2])


@pytest.mark.parametrize("asked", [(0, 1, "crop"), (1, 0, "scale"), (-1, -1, "scale"), (1, 1, "stretch")])
def test_sizes_that_make_no_sense_are_refused(asked: tuple[int, int, str]) -> None:
    with pytest.raises(MatrixError):
        wanted_size(*asked)


@pytest.mark.parametrize(
    ("size", "box", "scaled", "cropped"),
    [
        ((1000, 500), (320, 240), (320, 160), (320, 240)),
        ((500, 1000), (320, 240), (120, 240), (320, 240)),
        ((10, 10), (320, 240), (10, 10), (10, 8)),
        ((10000, 1), (320, 240), (320, 1), (1, 1)),
        ((1, 10000), (320, 240), (1, 240), (1, 1)),
        ((320, 240), (320, 240), (320, 240), (320, 240)),
        ((400, 100), (320, 240), (320, 80), (133, 100)),
    ],
)
def test_nothing_is_made_larger(
    size: tuple[int, int], box: tuple[int, int], scaled: tuple[int, int], cropped: tuple[int, int]
) -> None:
    assert shrink.scale_size(size, *box) == scaled
    assert shrink.crop_size(size, *box) == cropped


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ("", "M_MISSING_PARAM"),
        ("width=10", "M_MISSING_PARAM"),
        ("width=10&height=0", "M_INVALID_PARAM"),
        ("width=-10&height=10", "M_INVALID_PARAM"),
        ("width=1.5&height=10", "M_INVALID_PARAM"),
        ("width=a&height=10", "M_INVALID_PARAM"),
        ("width=10&height=10&method=stretch", "M_INVALID_PARAM"),
    ],
)
async def test_a_request_without_sense_is_refused(media: MediaHouse, query: str, errcode: str) -> None:
    media_id = await media.upload(picture())
    answer = await media.ask("GET", f"/_matrix/client/v1/media/thumbnail/example.org/{media_id}?{query}")
    assert refused(answer, 400, errcode)


# -- good pictures --


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_each_kind_of_picture_is_made_small(media: MediaHouse, kind: str) -> None:
    media_id = await media.upload(picture((800, 400), kind), "application/octet-stream")
    for method, height, size in (("scale", 200, (320, 160)), ("crop", 300, (320, 320))):
        answer = await media.thumbnail(media_id, 300, height, method)
        assert answer.status == 200, answer
        assert opened(answer.body).size == size
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Content-Disposition"] == 'inline; filename="thumbnail.jpg"'
        assert "Content-Security-Policy" in answer.headers


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16", "LA"])
async def test_each_mode_of_colour_is_understood(media: MediaHouse, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    media_id = await media.upload(encoded(Image.new("L", (400, 400), 200).convert(mode), kind))
    answer = await media.thumbnail(media_id, 96, 96, "crop")
    assert opened(answer.body).size == (96, 96)


async def test_what_shines_through_stays_so(media: MediaHouse) -> None:
    media_id = await media.upload(picture((400, 400), "PNG", "RGBA"))
    answer = await media.thumbnail(media_id, 96, 96, "crop")
    assert answer.headers["Content-Type"] == "image/png"
    assert opened(answer.body).mode == "RGBA"


async def test_a_photograph_is_turned_upright(media: MediaHouse) -> None:
    image = Image.new("RGB", (400, 200), "white")
    image.paste("red", (0, 0, 200, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: the left side comes on top
    media_id = await media.upload(encoded(image, "JPEG", exif=exif))
    answer = await media.thumbnail(media_id, 320, 240, "scale")
    small = opened(answer.body).convert("RGB")
    assert small.size == (120, 240)
    top, bottom = small.getpixel((60, 40)), small.getpixel((60, 200))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[1] < 60 < 200 < bottom[1]


async def test_a_small_picture_is_its_own_thumbnail(media: MediaHouse) -> None:
    content = picture((30, 20))
    media_id = await media.upload(content, "text/html")
    for _ in range(2):
        answer = await media.thumbnail(media_id, 320, 240)
        assert answer.body == content
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Disposition"] == 'inline; filename="thumbnail.png"'
    assert len(media.files()) == 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
async def test_a_thumbnail_does_not_move(media: MediaHouse, kind: str) -> None:
    media_id = await media.upload(moving_picture(kind=kind))
    answer = await media.thumbnail(media_id, 320, 240)
    assert opened(answer.body).size == (20, 10)
    assert answer.headers["Content-Type"] == "image/jpeg"


async def test_a_thumbnail_is_made_once_and_for_all_who_have_the_picture(
    media: MediaHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = picture((600, 300))
    first, second = await media.upload(content), await media.upload(content, "image/png", who="bob")
    one = await media.thumbnail(first, 300, 200)
    monkeypatch.setattr(media.media.shrinker, "_run", None)  # from here on it would fail
    assert (await media.thumbnail(first, 320, 240)).body == one.body
    assert (await media.thumbnail(second, 10, 10)).body == one.body
    assert len(media.rows("SELECT * FROM thumbnails")) == 1


async def test_many_who_ask_at_once_cost_one_process(media: MediaHouse) -> None:
    media_id = await media.upload(picture((600, 300)))
    run, runs = media.media.shrinker._run, 0

    def counted(*arguments: object) -> object:
        nonlocal runs
        runs += 1
        return run(*arguments)  # type: ignore[arg-type]  # handed on

    media.media.shrinker._run = counted  # type: ignore[assignment,method-assign]  # only counts
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(media.thumbnail, media_id, 300, 200)
    assert runs == 1


async def test_a_picture_has_so_many_thumbnails_and_no_more(
    media: MediaHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "MAX_VARIANTS", 3)
    media_id = await media.upload(picture((900, 900)))
    for number in range(thumbnails.MAX_VARIANTS + 3):
        answer = await media.thumbnail(media_id, 32, 32 + number, "crop")
        assert answer.status == 200
    assert opened(answer.body).size == (600, 600)
    assert len(media.rows("SELECT * FROM thumbnails")) == thumbnails.MAX_VARIANTS + 1


async def test_thumbnails_go_with_their_picture(media: MediaHouse) -> None:
    small, large = await media.upload(picture((20, 20))), await media.upload(picture((600, 300)))
    await media.thumbnail(small, 320, 240)
    await media.thumbnail(large, 320, 240)
    assert len(media.files()) == 3
    await media.media.uploads.delete(small)
    await media.media.uploads.delete(large)
    assert media.files() == []
    assert media.rows("SELECT * FROM thumbnails") == []


async def test_a_thumbnail_whose_file_is_gone_is_made_again(media: MediaHouse) -> None:
    content = picture((600, 300))
    media_id = await media.upload(content)
    first = await media.thumbnail(media_id, 300, 200)
    (digest,) = media.rows("SELECT sha256 FROM thumbnails")[0]
    media.media.files.path(digest).unlink()
    assert (await media.thumbnail(media_id, 300, 200)).body == content
    assert (await media.thumbnail(media_id, 300, 200)).body == first.body


async def test_without_pillow_the_picture_itself_is_the_answer(media: MediaHouse) -> None:
    media.media.shrinker.available = False
    content = picture((600, 300), "JPEG")
    answer = await media.thumbnail(await media.upload(content), 32, 32, "crop")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, content, "image/jpeg")
    refusal = await media.thumbnail(await media.upload(b"no picture", "image/jpeg"), 32, 32)
    assert refused(refusal, 400, "M_UNKNOWN")


# -- bad ones --


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"P6 1 1 255 abc",
        b"BM" + bytes(100),
        b"II*\0" + bytes(100),
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff\xd8\xff" + bytes(100),
        b"GIF89a" + bytes(100),
        b"RIFF\x40\0\0\0WEBPVP8 " + bytes(100),
        half(picture((400, 400), "PNG")),
        half(picture((400, 400), "JPEG")),
        half(picture((400, 400), "WEBP")),
    ],
)
async def test_what_is_no_whole_picture_has_no_thumbnail(media: MediaHouse, content: bytes) -> None:
    media_id = await media.upload(content, "image/png")
    for _ in range(2):
        assert refused(await media.thumbnail(media_id, 32, 32), 400, "M_UNKNOWN")
    assert media.rows("SELECT * FROM thumbnails") == []
    assert len(media.files()) == 1


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO", "EPS", "PDF"])
async def test_formats_off_the_list_are_never_opened(media: MediaHouse, kind: str) -> None:
    content = picture((100, 100), kind)
    assert picture_format(content[: shrinker.HEAD_BYTES]) is None
    assert refused(await media.thumbnail(await media.upload(content, "image/png"), 32, 32), 400, "M_UNKNOWN")


async def test_a_format_in_disguise_is_not_opened_as_what_it_is(tmp_path: Path) -> None:
    """Even if the first bytes could be made to say something else, only the named format is tried."""
    (tmp_path / "in").write_bytes(picture((100, 100), "TIFF"))
    assert await shrunk(tmp_path, "PNG") is shrinker.Verdict.NOT_READABLE


async def test_a_decompression_bomb_is_too_large(media: MediaHouse) -> None:
    bomb = png_bomb()
    assert len(bomb) < 20_000
    media_id = await media.upload(bomb, "image/png")
    for _ in range(2):
        assert refused(await media.thumbnail(media_id, 32, 32), 413, "M_TOO_LARGE")
    assert (await media.download(media_id)).body == bomb


def gif_bomb() -> bytes:
    """A small screen with a frame far beyond it."""
    data = bytearray(picture((10, 10), "GIF"))
    descriptor = data.index(b",\0\0\0\0")
    data[descriptor + 5 : descriptor + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


async def test_a_frame_beyond_its_screen_is_no_way_around_the_limit(media: MediaHouse) -> None:
    answer = await media.thumbnail(await media.upload(gif_bomb()), 32, 32)
    assert answer.status in (400, 413)


async def shrunk(folder: Path, kind: str) -> shrinker.Verdict:
    """What the process says to the file `in`."""
    source = os.open(folder / "in", os.O_RDONLY)
    target = os.open(folder / "out", os.O_RDWR | os.O_CREAT)
    try:
        return shrinker.Shrinker(InlineThreads())._run(source, target, [kind, "320", "240", "scale"])
    finally:
        os.close(source)
        os.close(target)


async def test_the_process_has_no_more_memory_than_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(content, "PNG", compress_level=1)
    (tmp_path / "in").write_bytes(content.getvalue())
    assert await shrunk(tmp_path, "PNG") is shrinker.Verdict.DONE
    monkeypatch.setattr(shrinker, "MAX_MEMORY", 150 * 1024 * 1024)
    assert await shrunk(tmp_path, "PNG") is shrinker.Verdict.TOO_LARGE


async def test_the_process_has_no_more_time_than_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(picture())
    monkeypatch.setattr(shrinker, "WALL_SECONDS", 0.001)
    assert await shrunk(tmp_path, "PNG") is shrinker.Verdict.TOO_LARGE
    monkeypatch.setattr(shrinker, "command", lambda: ["/bin/sh", "-c", "kill -XCPU $$"])
    monkeypatch.setattr(shrinker, "WALL_SECONDS", 20)
    assert await shrunk(tmp_path, "PNG") is shrinker.Verdict.TOO_LARGE


async def test_a_decoder_that_crashes_takes_nobody_with_it(
    media: MediaHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shrinker, "command", lambda: ["/bin/sh", "-c", "kill -SEGV $$"])
    media_id = await media.upload(picture((600, 300)))
    assert refused(await media.thumbnail(media_id, 32, 32), 400, "M_UNKNOWN")
    assert len(media.files()) == 1


async def test_a_result_that_is_no_picture_is_not_served(
    media: MediaHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shrinker, "command", lambda: ["/bin/sh", "-c", "echo '<script>'"])
    assert refused(await media.thumbnail(await media.upload(picture((600, 300))), 32, 32), 400, "M_UNKNOWN")


async def test_the_process_sees_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIHS_REGISTRATION_SHARED_SECRET", "hush")
    monkeypatch.setattr(shrinker, "command", lambda: ["/bin/sh", "-c", "env; ls -l /proc/self/fd"])
    (tmp_path / "in").write_bytes(b"")
    await shrunk(tmp_path, "PNG")
    seen = (tmp_path / "out").read_text()
    assert "PATH=" in seen
    assert "hush" not in seen
    assert "minihs" not in seen.lower()


def test_when_the_server_stops_the_processes_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time and with real threads: stopping must not wait for a slow decoder."""
    monkeypatch.setattr(shrinker, "command", lambda: ["/bin/sh", "-c", "sleep 19 & wait"])

    async def main() -> None:
        runtime = replace(virtual_runtime(), threads=WorkerThreads())
        async with open_media(tmp_path, runtime=runtime) as media:
            media_id = await media.upload(picture((600, 300)))
            with trio.move_on_after(1):
                await media.thumbnail(media_id, 32, 32)
            assert running("sleep 19")

    started = time.monotonic()
    trio.run(main)
    assert time.monotonic() - started < 10
    assert not running("sleep 19")


def running(command: str) -> bool:
    children = psutil.Process().children(recursive=True)
    return any(command == " ".join(child.cmdline()) for child in children)
