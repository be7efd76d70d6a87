# SPDX-License-Identifier: Apache-2.0
"""What could be fetched or made again: remote media and thumbnails, within one budget of bytes.

The least recently used go first. When a thing was used is written down now and then, not at each use: an
fsync for each picture shown would be a poor trade.
"""

from __future__ import annotations

from functools import partial

from minihs.media.files import Files
from minihs.runtime import Runtime
from minihs.store import media as store
from minihs.store.database import Database, Tx
from minihs.store.media import RemoteMedia, Thumbnail

NOTE_AFTER_MS = 3600_000
"""A use is noted only when the last noted one is older."""
MAX_NOTES = 5_000
ROWS_AT_ONCE = 100
"""Let go in one transaction."""
SHRINK_TO = 0.9
"""Of the budget, so that not every fetch has to make room."""


class Cache:
    """Mutable state: uses that are not yet written down; on the loop only."""

    def __init__(self, db: Database, runtime: Runtime, files: Files, budget: int) -> None:
        self._db = db
        self._runtime = runtime
        self._files = files
        self._budget = budget
        self._remote: set[tuple[str, str]] = set()
        self._thumbnails: set[tuple[bytes, int, int, str]] = set()

    def used_remote(self, media: RemoteMedia) -> None:
        if self._is_old(media.used_ts) and len(self._remote) < MAX_NOTES:
            self._remote.add((media.origin, media.media_id))

    def used_thumbnail(self, each: Thumbnail) -> None:
        if self._is_old(each.used_ts) and len(self._thumbnails) < MAX_NOTES:
            self._thumbnails.add((each.source, each.width, each.height, each.method))

    def _is_old(self, used_ts: int) -> bool:
        return self._runtime.clock.now_ms() - used_ts > NOTE_AFTER_MS

    async def write_down(self) -> None:
        """Note the uses."""
        if not self._remote and not self._thumbnails:
            return
        remote, self._remote = self._remote, set()
        thumbnails, self._thumbnails = self._thumbnails, set()
        now_ms = self._runtime.clock.now_ms()

        def note(tx: Tx) -> None:
            store.touch_remote(tx, remote, now_ms)
            store.touch_thumbnails(tx, thumbnails, now_ms)

        await self._db.write(note)

    async def shrink(self) -> None:
        """Let go of what is over the budget."""
        excess = store.cached_bytes(self._db.read) - self._budget
        if excess <= 0:
            return
        await self.write_down()
        wanted = store.cached_bytes(self._db.read) - round(self._budget * SHRINK_TO)
        while wanted > 0:
            freed, files = await self._db.write(partial(evict, wanted=wanted))
            if not files:
                return
            self._files.remove_unused(files)
            wanted -= freed


def evict(tx: Tx, wanted: int) -> tuple[int, list[bytes]]:
    freed, files = store.evict(tx, wanted, ROWS_AT_ONCE)
    return freed, store.delete_thumbnails_of_unused(tx, files)
