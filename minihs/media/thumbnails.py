# SPDX-License-Identifier: Apache-2.0
"""Thumbnails (client-server-api, "Thumbnails"): which sizes there are, and how each is made once.

A request is answered with the next size up of a few fixed ones, so that a picture has a handful of thumbnails
and not one for each client's screen. A picture that is small enough already is its own thumbnail. Thumbnails
don't move: `animated` is a preference only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from minihs.matrix.errors import MatrixError, invalid_param
from minihs.media.bounds import FailureMemory
from minihs.media.cache import Cache
from minihs.media.files import Files, OpenFile, TooLong
from minihs.media.shared import SharedJobs
from minihs.media.shrinker import HEAD_BYTES, MAX_OUTPUT, PICTURE_TYPES, Shrinker, Verdict, picture_format
from minihs.runtime import Runtime
from minihs.store import media as store
from minihs.store.database import Database
from minihs.store.media import Thumbnail

SCALE_SIZES = ((320, 240), (640, 480), (800, 600), (1600, 1200), (2560, 2560), (4096, 4096))
CROP_SIDES = (32, 96, 320, 640, 1600, 4096)
"""The longer side; the other follows the shape that was asked for."""

MAX_SIDE = 4096
"""Pixels. Requests for more are answered with this much."""

MAX_VARIANTS = 24
"""Thumbnails of one picture. When there are that many, what else is asked for is answered with FALLBACK."""

REMEMBER_FAILED = 24 * 3600.0
"""Seconds; a picture that can't be made small today can't tomorrow."""


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int
    method: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The file of a thumbnail, or the picture itself."""

    sha256: bytes
    file: OpenFile
    content_type: str


FALLBACK = Size(800, 600, "scale")


def wanted_size(width: int, height: int, method: str) -> Size:
    """The size that is made for a request."""
    if width < 1 or height < 1:
        raise invalid_param("width and height must be at least 1.")
    longer = max(width, height)
    if method == "scale":
        fitting = (size for size in SCALE_SIZES if size[0] >= width and size[1] >= height)
        return Size(*next(fitting, SCALE_SIZES[-1]), "scale")
    if method == "crop":
        side = next((side for side in CROP_SIDES if side >= longer), MAX_SIDE)
        # Rounded up: never smaller than what was asked for.
        return Size(-(-width * side // longer), -(-height * side // longer), "crop")
    raise invalid_param("method must be crop or scale.")


class Thumbnails:
    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        files: Files,
        cache: Cache,
        jobs: SharedJobs,
        shrinker: Shrinker,
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._files = files
        self._cache = cache
        self._jobs = jobs
        self._shrinker = shrinker
        self._failures = FailureMemory()

    async def get(self, sha256: bytes, original: OpenFile, wanted: Size, *, is_local: bool) -> Picture:
        """The thumbnail of a file. MatrixError if it is not a picture, or too large a one."""
        kind = picture_format(await original.read(0, HEAD_BYTES))
        if kind is None:
            raise no_thumbnail()
        itself = Picture(sha256, original, PICTURE_TYPES[kind])
        if not self._shrinker.available:
            return itself
        found = self._stored(sha256, wanted)
        if found is None and store.count_thumbnails(self._db.read, sha256) >= MAX_VARIANTS:
            wanted = FALLBACK
            found = self._stored(sha256, wanted)
        if found is None:
            found = await self._make(sha256, original, kind, wanted, is_local=is_local)
        if found.sha256 == sha256:
            return itself
        file = self._files.open(found.sha256)
        if file is None:  # a data folder that was restored in part
            await self._db.write(
                lambda tx: store.delete_thumbnail(tx, found.source, found.width, found.height, found.method)
            )
            return itself
        self._cache.used_thumbnail(found)
        return Picture(found.sha256, file, found.content_type)

    def _stored(self, sha256: bytes, size: Size) -> Thumbnail | None:
        return store.thumbnail(self._db.read, sha256, size.width, size.height, size.method)

    async def _make(
        self, sha256: bytes, original: OpenFile, kind: str, size: Size, *, is_local: bool
    ) -> Thumbnail:
        try:
            self._failures.check(sha256)
            return await self._jobs.result(
                ("thumbnail", sha256, size), lambda: self._shrink(sha256, original, kind, size)
            )
        except MatrixError as error:
            if error.errcode == "M_TOO_LARGE" and not is_local:
                raise MatrixError(502, "M_TOO_LARGE", error.message) from error
            raise

    async def _shrink(self, sha256: bytes, original: OpenFile, kind: str, size: Size) -> Thumbnail:
        async with self._files.incoming(MAX_OUTPUT) as result:
            verdict = await self._shrinker.shrink(
                original, kind, size.width, size.height, size.method, result
            )
            match verdict:
                case Verdict.NOT_READABLE:
                    raise self._failures.remember(sha256, no_thumbnail(), REMEMBER_FAILED)
                case Verdict.TOO_LARGE:
                    raise self._failures.remember(sha256, too_large(), REMEMBER_FAILED)
                case Verdict.ORIGINAL_WILL_DO:
                    return await self._keep(sha256, size, sha256, 0, PICTURE_TYPES[kind])
            try:
                await result.take_over()
            except TooLong:
                raise self._failures.remember(sha256, too_large(), REMEMBER_FAILED) from None
            result_kind = picture_format(await self._runtime.threads.run(_head, result.descriptor))
            if result_kind is None:
                raise self._failures.remember(sha256, no_thumbnail(), REMEMBER_FAILED)
            async with result.kept() as file:
                made = await self._keep(sha256, size, file.sha256, file.size, PICTURE_TYPES[result_kind])
        await self._cache.shrink()
        return made

    async def _keep(
        self, source: bytes, size: Size, sha256: bytes, count: int, content_type: str
    ) -> Thumbnail:
        made = Thumbnail(
            source,
            size.width,
            size.height,
            size.method,
            sha256,
            count,
            content_type,
            self._runtime.clock.now_ms(),
        )
        await self._db.write(lambda tx: store.add_thumbnail(tx, made))
        return made


def _head(descriptor: int) -> bytes:
    return os.pread(descriptor, HEAD_BYTES, 0)


def no_thumbnail() -> MatrixError:
    return MatrixError(400, "M_UNKNOWN", "Cannot generate thumbnails for the requested content.")


def too_large() -> MatrixError:
    return MatrixError(413, "M_TOO_LARGE", "Content is too large to thumbnail.")
