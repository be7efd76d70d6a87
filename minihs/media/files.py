# SPDX-License-Identifier: Apache-2.0
"""The bytes of media: files under the data folder, named by their SHA-256.

    async with files.incoming(cap) as incoming:
        async for chunk in body:
            await incoming.write(chunk)
        async with incoming.kept() as file:
            ...commit the row that has file.sha256

A file comes into being under `incoming/`, is synced to disk, moved to its name, and its folder synced, all
before its row is committed: what a row names is on disk. Whatever else an interruption leaves is swept away
at the next start. A file is removed only when no row has it and nobody is about to commit one (`_claims`).

Mutable state (`_claims`, `_active`) belongs to the loop; reading, writing and hashing happen in threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from minihs.matrix.errors import MatrixError
from minihs.runtime import Randomness, Threads

WRITE_BYTES = 256 * 1024
"""Collected before a thread writes it: a trip to a thread costs some 100 µs."""

READ_BYTES = 128 * 1024
"""Read at once for somebody who downloads."""

DISK_RESERVE = 256 * 1024 * 1024
"""Bytes of the disk that media leave free: a full disk stops the database."""

INCOMING = "incoming"
_SHARD = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{62}")


class TooLong(Exception):
    """More bytes than the cap."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    sha256: bytes
    size: int


class OpenFile:
    """A file that can be read to its end, whatever happens to its name meanwhile."""

    def __init__(self, descriptor: int, threads: Threads) -> None:
        self._descriptor = descriptor
        self._threads = threads
        self.size = os.fstat(descriptor).st_size

    def fileno(self) -> int:
        return self._descriptor

    async def read(self, start: int, size: int) -> bytes:
        return await self._threads.run(os.pread, self._descriptor, size, start)

    async def stream(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`."""
        stop = self.size if end is None else end
        while start < stop:
            chunk = await self.read(start, min(READ_BYTES, stop - start))
            if not chunk:
                raise OSError(errno.EIO, "a media file is shorter than it was")
            start += len(chunk)
            yield chunk

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        # An answer may be dropped before its first byte was asked for; then nothing else closes the file.
        self.close()


class Incoming:
    """A file on its way in. Made by `Files.incoming`."""

    def __init__(self, files: Files, path: Path, descriptor: int, cap: int) -> None:
        self._files = files
        self.path = path
        self.descriptor = descriptor
        self.cap = cap
        self.size = 0
        self._hash = hashlib.sha256()
        self._collected = bytearray()

    async def write(self, data: bytes) -> None:
        """Append; TooLong as soon as it would be more than the cap."""
        self.size += len(data)
        if self.size > self.cap:
            raise TooLong
        self._collected += data
        if len(self._collected) >= WRITE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        data, self._collected = self._collected, bytearray()
        await self._files.threads.run(self._append, data)

    def _append(self, data: bytearray) -> None:
        self._hash.update(data)
        view = memoryview(data)
        with no_space_is_an_answer():
            while view:
                view = view[os.write(self.descriptor, view) :]

    async def take_over(self) -> None:
        """Count and hash what another process has written to the descriptor."""
        await self._files.threads.run(self._measure)

    def _measure(self) -> None:
        self.size = 0
        while chunk := os.pread(self.descriptor, READ_BYTES, self.size):
            self.size += len(chunk)
            if self.size > self.cap:
                raise TooLong
            self._hash.update(chunk)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[StoredFile]:
        """The file in its place, on disk; it stays if the body commits a row for it.

        Not interrupted half-way: the body is one database write.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await self._flush()
            file = StoredFile(self._hash.digest(), self.size)
            try:
                with self._files.claimed(file.sha256):
                    await self._files.threads.run(self._files.put_in_place, self, file.sha256)
                    yield file
            except MatrixError:  # refused at the last moment: there is certainly no row
                self._files.remove_unused([file.sha256])
                raise


class Files:
    """The folder with all files."""

    def __init__(
        self, folder: Path, threads: Threads, random: Randomness, is_used: Callable[[bytes], bool]
    ) -> None:
        """`is_used`: whether a row refers to the file."""
        self.folder = folder
        self._is_used = is_used
        self.threads = threads
        self._random = random
        self._claims: Counter[bytes] = Counter()
        """Files whose row is about to be committed."""
        self._active: set[str] = set()
        """Names under incoming/ that are being written."""

    @asynccontextmanager
    async def incoming(self, cap: int) -> AsyncIterator[Incoming]:
        """A new file of at most `cap` bytes. Gone afterwards, unless it was kept."""
        name = self._random.token_urlsafe(18)
        path = self.folder / INCOMING / name
        self._active.add(name)
        try:
            descriptor = await self.threads.run(self._create, path)
            try:
                yield Incoming(self, path, descriptor, cap)
            finally:
                os.close(descriptor)
                with suppress(FileNotFoundError):
                    os.unlink(path)
        finally:
            self._active.discard(name)

    def _create(self, path: Path) -> int:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(path.parent)
        if disk.f_bavail * disk.f_frsize < DISK_RESERVE:
            raise no_space()
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def put_in_place(self, incoming: Incoming, sha256: bytes) -> None:
        """In a thread: sync, move to the final name, sync the folders. The name is not held against it: the
        same content may be there already."""
        target = self.path(sha256)
        with no_space_is_an_answer():
            os.fsync(incoming.descriptor)
            if not target.parent.is_dir():
                target.parent.mkdir(mode=0o700, exist_ok=True)
                sync_folder(self.folder)
            os.replace(incoming.path, target)
            sync_folder(target.parent)

    def path(self, sha256: bytes) -> Path:
        name = sha256.hex()
        return self.folder / name[:2] / name[2:]

    def open(self, sha256: bytes) -> OpenFile | None:
        """None if it is not there."""
        try:
            descriptor = os.open(self.path(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return OpenFile(descriptor, self.threads)

    def claimed(self, sha256: bytes) -> _Claim:
        return _Claim(self._claims, sha256)

    def remove_unused(self, candidates: Iterable[bytes]) -> None:
        """Remove those of the files that nothing refers to. No await: between the look and the removal
        nobody can claim one."""
        for sha256 in candidates:
            if not self._claims[sha256] and not self._is_used(sha256):
                with suppress(FileNotFoundError):
                    os.unlink(self.path(sha256))

    async def sweep(self) -> int:
        """Remove what an earlier end left behind: half files, and whole ones without a row."""
        removed = 0
        for name in await self.threads.run(_names, self.folder / INCOMING):
            if name not in self._active:
                with suppress(FileNotFoundError):
                    os.unlink(self.folder / INCOMING / name)
                    removed += 1
        for shard in await self.threads.run(_names, self.folder):
            if _SHARD.fullmatch(shard) is None:
                continue
            for rest in await self.threads.run(_names, self.folder / shard):
                if _REST.fullmatch(rest) is None:
                    continue
                sha256 = bytes.fromhex(shard + rest)
                if not self._claims[sha256] and not self._is_used(sha256):
                    with suppress(FileNotFoundError):
                        os.unlink(self.folder / shard / rest)
                        removed += 1
                await trio.lowlevel.checkpoint()
        return removed


class _Claim:
    """Keeps a file from being removed for as long as the `with` lasts."""

    def __init__(self, claims: Counter[bytes], sha256: bytes) -> None:
        self._claims = claims
        self._sha256 = sha256

    def __enter__(self) -> None:
        self._claims[self._sha256] += 1

    def __exit__(self, *_: object) -> None:
        self._claims[self._sha256] -= 1
        if not self._claims[self._sha256]:
            del self._claims[self._sha256]


class no_space_is_an_answer:
    """Turns "disk full" into what the client is told."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space() from error


def no_space() -> MatrixError:
    return MatrixError(507, "M_UNKNOWN", "This server has no room for the file.")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
