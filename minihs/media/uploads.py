# SPDX-License-Identifier: Apache-2.0
"""What our own users upload (client-server-api, "Content repository").

A file is on disk before its row is committed, and its row before the client is answered. An id can also be
made first and filled later; until then those who ask for it wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import trio

from minihs.matrix.errors import MatrixError, forbidden, limit_exceeded, not_found, too_large
from minihs.media import names
from minihs.media.files import Files, StoredFile, TooLong
from minihs.media.remote import not_yet_uploaded
from minihs.runtime import Runtime
from minihs.store import media as store
from minihs.store.database import Database, Reader, Tx
from minihs.store.media import LocalMedia

MAX_UPLOADS = 16
"""At once, of all users: each may hold a file of the largest size on disk."""

MAX_PENDING = 20
"""Ids of one user that wait for their content."""

UNUSED_MS = 24 * 3600_000
"""How long an id waits for its content."""


MAX_PICTURE = 10 * 1024 * 1024
"""Bytes of a picture that a preview shows."""

type Commit = Callable[[Tx, LocalMedia], None]
"""Writes the row of a file that is in its place."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client sends."""

    user_id: str
    body: AsyncIterator[bytes]
    content_type: str | None
    filename: str | None


class Uploads:
    """Mutable state: who waits for an upload, and how many are under way; on the loop only."""

    def __init__(self, db: Database, runtime: Runtime, files: Files, max_bytes: int, quota: int) -> None:
        self._db = db
        self._runtime = runtime
        self._files = files
        self._max_bytes = max_bytes
        self._quota = quota
        """Bytes for each user; 0: no limit."""
        self._under_way = 0
        self._arrivals: dict[str, trio.Event] = {}

    async def upload(self, upload: Upload) -> str:
        """Store a file; its media id."""
        media_id = self._new_id()
        now_ms = self._runtime.clock.now_ms()
        await self._receive(media_id, upload, lambda tx, media: store.add_local(tx, media, now_ms))
        return media_id

    async def add_picture(self, body: AsyncIterator[bytes], content_type: str, expires_ms: int) -> LocalMedia:
        """Store a picture of a preview. Raises TooLong."""
        now_ms = self._runtime.clock.now_ms()
        async with self._files.incoming(MAX_PICTURE) as incoming:
            async for chunk in body:
                await incoming.write(chunk)
            async with incoming.kept() as file:
                media = LocalMedia(
                    self._new_id(), None, expires_ms, file.sha256, file.size, content_type, None
                )
                await self._db.write(lambda tx: store.add_local(tx, media, now_ms))
                return media

    async def create(self, user_id: str) -> tuple[str, int]:
        """An id to be filled later, and until when."""
        now_ms = self._runtime.clock.now_ms()
        if store.pending(self._db.read, user_id, now_ms) >= MAX_PENDING:
            raise limit_exceeded(60_000, "Too many uploads are pending; finish some first.")
        media_id = self._new_id()
        await self._db.write(lambda tx: store.reserve(tx, media_id, user_id, now_ms, now_ms + UNUSED_MS))
        return media_id, now_ms + UNUSED_MS

    async def fill(self, media_id: str, upload: Upload) -> None:
        """Give an id its content."""
        found = self._existing(media_id)
        if found is None:
            raise not_found("The media id was not created here, or has expired.")
        if found.user_id != upload.user_id:
            raise forbidden("The media id belongs to somebody else.")
        if found.sha256 is not None:
            raise cannot_overwrite()

        now_ms = self._runtime.clock.now_ms()

        def fill(tx: Tx, media: LocalMedia) -> None:
            if not store.fill(tx, media, now_ms):
                raise cannot_overwrite()

        await self._receive(media_id, upload, fill)
        if (arrival := self._arrivals.pop(media_id, None)) is not None:
            arrival.set()

    async def find(self, media_id: str, *, timeout_ms: int) -> LocalMedia:
        """The media; waits for its content if that is still to come."""
        with trio.move_on_after(timeout_ms / 1000):
            while (found := self._existing(media_id)) is not None and found.sha256 is None:
                await self._arrivals.setdefault(media_id, trio.Event()).wait()
        found = self._existing(media_id)
        if found is None:
            raise not_found("There is no such media.")
        if found.sha256 is None:
            raise not_yet_uploaded()
        return found

    async def delete(self, media_id: str) -> bool:
        """Remove a file of ours, unless the same content is in use elsewhere; False if there is none."""
        if store.local(self._db.read, media_id) is None:
            return False
        files = await self._db.write(
            lambda tx: store.delete_thumbnails_of_unused(tx, store.delete_local(tx, media_id))
        )
        self._files.remove_unused(files)
        return True

    async def delete_expired(self) -> None:
        """Ids that nobody filled, and pictures of old previews."""
        now_ms = self._runtime.clock.now_ms()
        files = await self._db.write(
            lambda tx: store.delete_thumbnails_of_unused(tx, store.delete_expired(tx, now_ms))
        )
        self._files.remove_unused(files)
        for media_id in [each for each in self._arrivals if self._existing(each) is None]:
            self._arrivals.pop(media_id).set()

    async def _receive(self, media_id: str, upload: Upload, commit: Commit) -> None:
        if self._under_way >= MAX_UPLOADS:
            raise limit_exceeded(5_000, "Too many uploads at once.")
        self._check_quota(self._db.read, upload.user_id, 0)
        self._under_way += 1
        try:
            async with self._files.incoming(self._max_bytes) as incoming:
                async for chunk in upload.body:
                    await incoming.write(chunk)
                async with incoming.kept() as file:
                    await self._commit(media_id, upload, file, commit)
        except TooLong:
            raise too_large(f"Files may have up to {self._max_bytes} bytes.") from None
        finally:
            self._under_way -= 1

    async def _commit(self, media_id: str, upload: Upload, file: StoredFile, commit: Commit) -> None:
        media = LocalMedia(
            media_id,
            upload.user_id,
            None,
            file.sha256,
            file.size,
            names.content_type(upload.content_type),
            names.filename(upload.filename),
        )

        def write(tx: Tx) -> None:
            self._check_quota(tx, upload.user_id, file.size)
            commit(tx, media)

        await self._db.write(write)

    def _existing(self, media_id: str) -> LocalMedia | None:
        found = store.local(self._db.read, media_id)
        if found is not None and found.expires_ts is not None:
            return found if found.expires_ts > self._runtime.clock.now_ms() else None
        return found

    def _check_quota(self, db: Reader, user_id: str, more: int) -> None:
        if self._quota and store.stored_bytes(db, user_id) + more > self._quota:
            raise forbidden("Your files have reached the size that this server allows.")

    def _new_id(self) -> str:
        return self._runtime.random.token_urlsafe(18)


def cannot_overwrite() -> MatrixError:
    return MatrixError(409, "M_CANNOT_OVERWRITE_MEDIA", "The media has been uploaded already.")
