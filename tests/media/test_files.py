# SPDX-License-Identifier: Apache-2.0
"""Files by their content: on disk before anybody refers to them, gone after the last who does."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from minihs.matrix.errors import MatrixError, forbidden
from minihs.media import files as files_module
from minihs.media.files import Files, TooLong
from minihs.runtime import InlineThreads
from minihs.testing.clock import SeededRandom
from tests.media.kit import open_media, picture


class Folder:
    """Files, and a set in place of the database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: set[bytes] = set()
        self.files = Files(folder, InlineThreads(), SeededRandom(), self.rows.__contains__)

    async def add(self, content: bytes, cap: int = 1 << 20) -> bytes:
        async with self.files.incoming(cap) as incoming:
            await incoming.write(content)
            async with incoming.kept() as file:
                self.rows.add(file.sha256)
                return file.sha256

    async def refuse(self, content: bytes) -> None:
        """As when the row is not written."""
        async with self.files.incoming(1 << 20) as incoming:
            await incoming.write(content)
            async with incoming.kept():
                raise forbidden("You have too much already.")

    def names(self) -> set[str]:
        return {str(each.relative_to(self.folder)) for each in self.folder.rglob("*") if each.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "media")


async def test_a_file_is_named_by_its_hash(folder: Folder) -> None:
    content = bytes(files_module.WRITE_BYTES) + b"and a little more"
    sha256 = await folder.add(content)
    name = hashlib.sha256(content).hexdigest()
    assert sha256.hex() == name
    assert folder.names() == {f"{name[:2]}/{name[2:]}"}
    file = folder.files.open(sha256)
    assert file is not None
    assert b"".join([chunk async for chunk in file.stream()]) == content
    assert b"".join([chunk async for chunk in file.stream(5, 7)]) == content[5:7]
    assert (folder.folder / name[:2]).stat().st_mode & 0o077 == 0


async def test_what_is_not_kept_leaves_nothing(folder: Folder) -> None:
    with pytest.raises(TooLong):
        await folder.add(b"12345", cap=4)
    async with folder.files.incoming(10) as incoming:
        await incoming.write(b"x")
        assert folder.names() != set()
    assert folder.names() == set()


async def test_a_row_that_is_refused_takes_its_file_along(folder: Folder) -> None:
    with pytest.raises(MatrixError):
        await folder.refuse(b"x")
    assert folder.names() == set()


async def test_a_refused_row_does_not_take_a_file_that_others_have(folder: Folder) -> None:
    sha256 = await folder.add(b"x")
    with pytest.raises(MatrixError):
        await folder.refuse(b"x")
    assert folder.files.open(sha256) is not None


async def test_a_file_about_to_be_referred_to_is_not_removed(folder: Folder) -> None:
    """One row of the content goes in the very moment in which another comes."""
    sha256 = await folder.add(b"x")
    async with folder.files.incoming(10) as incoming:
        await incoming.write(b"x")
        async with incoming.kept() as file:
            folder.rows.discard(sha256)
            folder.files.remove_unused([sha256])
            await folder.files.sweep()
            folder.rows.add(file.sha256)
    assert folder.files.open(sha256) is not None
    folder.rows.clear()
    folder.files.remove_unused([sha256, sha256])
    assert folder.names() == set()


async def test_cancelling_does_not_part_a_file_from_its_row(folder: Folder) -> None:
    with trio.CancelScope() as scope:
        async with folder.files.incoming(10) as incoming:
            await incoming.write(b"x")
            async with incoming.kept() as file:
                scope.cancel()
                await trio.lowlevel.checkpoint()
                folder.rows.add(file.sha256)
    assert len(folder.rows) == len(folder.names()) == 1


async def test_a_disk_that_fills_up_meanwhile_is_an_answer(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(MatrixError) as caught:
        await folder.add(b"x")
    assert caught.value.status == 507
    monkeypatch.undo()
    assert folder.names() == set()


async def test_a_file_that_became_shorter_is_not_sent_as_whole(folder: Folder) -> None:
    sha256 = await folder.add(b"content")
    file = folder.files.open(sha256)
    assert file is not None
    folder.files.path(sha256).write_bytes(b"con")
    with pytest.raises(OSError, match="shorter"):
        _ = [chunk async for chunk in file.stream()]


async def test_a_file_that_is_open_can_be_read_after_its_removal(folder: Folder) -> None:
    sha256 = await folder.add(b"content")
    file = folder.files.open(sha256)
    assert file is not None
    folder.rows.clear()
    folder.files.remove_unused([sha256])
    assert folder.names() == set()
    assert await file.read(0, 100) == b"content"


async def test_a_sweep_removes_what_nobody_has_and_nothing_else(folder: Folder) -> None:
    kept, lost = await folder.add(b"kept"), await folder.add(b"lost")
    folder.rows.discard(lost)
    (folder.folder / "incoming" / "half").write_bytes(b"ha")
    for name in ("README", "00/README", "zz/file"):
        (folder.folder / name).parent.mkdir(exist_ok=True)
        (folder.folder / name).write_bytes(b"somebody's own")
    async with folder.files.incoming(10) as incoming:
        assert await folder.files.sweep() == 2
        assert incoming.path.exists()
    assert folder.names() == {f"{kept.hex()[:2]}/{kept.hex()[2:]}", "README", "00/README", "zz/file"}


async def test_a_sweep_of_nothing_is_nothing(folder: Folder) -> None:
    assert await folder.files.sweep() == 0


async def test_what_an_earlier_end_left_is_gone_after_the_next_start(tmp_path: Path) -> None:
    async with open_media(tmp_path) as media:
        media_id = await media.upload(picture((600, 300)))
        await media.thumbnail(media_id, 32, 32, "crop")
        before = media.files()
    (tmp_path / "media" / "incoming" / "half").write_bytes(b"ha")
    orphan = tmp_path / "media" / "ab" / ("c" * 62)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"no row")
    async with open_media(tmp_path) as media:
        await trio.sleep(1)
        assert media.files() == before
        assert (await media.download(media_id)).status == 200


async def test_every_step_of_an_upload_can_be_cancelled(tmp_path: Path) -> None:
    """Whenever the client goes, there is a row with its file or neither."""
    async with open_media(tmp_path, run=False) as media:
        for checkpoint in range(40):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_at, scope, checkpoint)
                    await media.upload(b"content %d" % checkpoint)
            await media.house.until_nobody_is_left()
            rows = {sha256.hex() for (sha256,) in media.rows("SELECT sha256 FROM local_media")}
            assert rows == {path.parent.name + path.name for path in media.files()}
        assert rows


async def cancel_at(scope: trio.CancelScope, checkpoint: int) -> None:
    for _ in range(checkpoint):
        await trio.lowlevel.checkpoint()
    scope.cancel()
