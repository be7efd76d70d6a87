# SPDX-License-Identifier: Apache-2.0
"""Media of one server, in one place for the routes."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
import trio

from minihs.config import Config
from minihs.matrix.errors import invalid_param, not_found
from minihs.matrix.ids import is_server_name
from minihs.media import ports
from minihs.media.cache import Cache
from minihs.media.files import Files, OpenFile
from minihs.media.names import is_media_id
from minihs.media.previews import Previews
from minihs.media.remote import Remote
from minihs.media.shared import SharedJobs
from minihs.media.shrinker import Shrinker
from minihs.media.thumbnails import Size, Thumbnails, wanted_size
from minihs.media.uploads import Uploads
from minihs.runtime import Runtime
from minihs.store import media as store
from minihs.store.database import Database

MIB = 1024 * 1024

DEFAULT_WAIT_MS = 20_000
MAX_WAIT_MS = 60_000
"""How long somebody may wait for an upload that is still to come."""

HOUSEKEEPING_SECONDS = 600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Download:
    """A file to be sent out, open."""

    file: OpenFile
    sha256: bytes
    content_type: str
    filename: str | None


class Media:
    """Uploads, downloads, thumbnails and previews."""

    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        config: Config,
        *,
        peers: ports.Peers,
        web: ports.Web,
        nursery: trio.Nursery,
    ) -> None:
        settings = config.media
        self._our_name = config.server_name
        self.max_upload = settings.max_upload_mib * MIB
        self.files = Files(
            config.data_path / "media",
            runtime.threads,
            runtime.random,
            lambda sha256: store.is_used(db.read, sha256),
        )
        self.cache = Cache(db, runtime, self.files, settings.remote_cache_mib * MIB)
        jobs = SharedJobs(nursery)
        self.uploads = Uploads(db, runtime, self.files, self.max_upload, settings.user_quota_mib * MIB)
        self.remote = Remote(
            db, runtime, self.files, self.cache, jobs, peers, web, settings.max_remote_mib * MIB
        )
        self.shrinker = Shrinker(runtime.threads)
        self.thumbnails = Thumbnails(db, runtime, self.files, self.cache, jobs, self.shrinker)
        self.previews = (
            Previews(db, runtime, web, self.uploads, jobs, config.server_name)
            if settings.url_previews
            else None
        )

    async def run(self) -> None:
        """Tidy up at the start and then now and again; when cancelled, end what runs beside us."""
        try:
            await self._sweep()
            while True:
                await self.uploads.delete_expired()
                await self.cache.write_down()
                await self.cache.shrink()
                await trio.sleep(HOUSEKEEPING_SECONDS)
        finally:
            self.shrinker.stop()

    async def _sweep(self) -> None:
        try:
            removed = await self.files.sweep()
        except OSError as error:
            log.error("the media folder can't be tidied up", reason=str(error))
        else:
            if removed:
                log.info("removed media files that nothing refers to", files=removed)

    async def download(
        self, server: str, media_id: str, *, timeout_ms: int = DEFAULT_WAIT_MS, may_fetch: bool = True
    ) -> Download:
        """The file of an mxc:// URI. MatrixError if it is not to be had."""
        if not is_server_name(server) or not is_media_id(media_id):
            raise invalid_param("This is not the server name and id of any media.")
        if server == self._our_name:
            return await self.download_ours(media_id, timeout_ms=timeout_ms)
        return await self._download_theirs(server, media_id, timeout_ms, may_fetch)

    async def download_ours(self, media_id: str, *, timeout_ms: int = DEFAULT_WAIT_MS) -> Download:
        if not is_media_id(media_id):
            raise invalid_param("This is not the id of any media.")
        found = await self.uploads.find(media_id, timeout_ms=min(timeout_ms, MAX_WAIT_MS))
        file = None if found.sha256 is None else self.files.open(found.sha256)
        if file is None or found.sha256 is None:
            log.error("a media file is missing; was the media folder left out of a restore?", media=media_id)
            raise not_found("The media has been lost.")
        return Download(file, found.sha256, found.content_type, found.filename)

    async def _download_theirs(
        self, server: str, media_id: str, timeout_ms: int, may_fetch: bool
    ) -> Download:
        for _ in range(2):
            if may_fetch:
                found = await self.remote.get(server, media_id, timeout_ms=min(timeout_ms, MAX_WAIT_MS))
            else:
                cached = self.remote.cached(server, media_id)
                if cached is None:
                    break
                found = cached
            file = self.files.open(found.sha256)
            if file is not None:
                return Download(file, found.sha256, found.content_type, found.filename)
            await self.remote.forget(found)  # removed from the cache this moment, or by hand
        raise not_found("The media is not here.")

    async def thumbnail(
        self, server: str, media_id: str, size: Size, *, timeout_ms: int, may_fetch: bool = True
    ) -> Download:
        original = await self.download(server, media_id, timeout_ms=timeout_ms, may_fetch=may_fetch)
        picture = await self.thumbnails.get(
            original.sha256, original.file, size, is_local=server == self._our_name
        )
        extension = picture.content_type.removeprefix("image/").replace("jpeg", "jpg")
        return Download(picture.file, picture.sha256, picture.content_type, f"thumbnail.{extension}")


__all__ = ["DEFAULT_WAIT_MS", "MAX_WAIT_MS", "Download", "Media", "Size", "wanted_size"]
