# SPDX-License-Identifier: Apache-2.0
"""Waiting until all members of a room are known, for what can't be said or done before.

See rooms/partial_join.py. Never in the room's own task: the members come through it.
"""

from __future__ import annotations

from collections import Counter

import trio

from minihs.matrix.errors import MatrixError
from minihs.store import rooms
from minihs.store.database import Database

MAX_WAIT = 60.0
"""Seconds that a request waits for a room's members."""
MAX_WAITING = 100
"""Requests that wait for the members of one room."""


class Whole:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._news = trio.Event()
        self._waiting: Counter[str] = Counter()
        db.on_commit(self._see_commit)

    def _see_commit(self, keys: frozenset[str]) -> None:
        if "partial" in keys:
            self._news.set()
            self._news = trio.Event()

    def is_partial(self, room_id: str) -> bool:
        room = rooms.get(self._db.read, room_id)
        return room is not None and room.partial

    async def wait(self, room_id: str) -> None:
        """Until it is so, or we are no longer in the room. Raises MatrixError if that takes too long."""
        if not self.is_partial(room_id):
            return
        if self._waiting[room_id] < MAX_WAITING:
            self._waiting[room_id] += 1
            try:
                with trio.move_on_after(MAX_WAIT):
                    while self.is_partial(room_id):
                        await self._news.wait()
                    return
            finally:
                self._waiting[room_id] -= 1
                if not self._waiting[room_id]:
                    del self._waiting[room_id]
        raise MatrixError(
            504, "M_UNKNOWN", "The members of this room are still being fetched. Try again in a while."
        )
