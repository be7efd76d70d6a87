# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to tell, the same for /sync and for sliding sync: an answer is attempted whenever
something happens to the user, until one has news or the time is up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from minihs.rooms.turns import OURS
from minihs.store import sync_rooms
from minihs.store.database import Database
from minihs.sync.client_events import Viewer
from minihs.sync.notifier import Notifier
from minihs.sync.typing import Typing


class Attempt[T](NamedTuple):
    answer: T
    is_empty: bool
    counts: object
    """Of the device's keys. They are in every answer, and news only if they change while the client waits."""


class Polls:
    """Lives on the event loop."""

    def __init__(self, db: Database, notifier: Notifier, typing: Typing) -> None:
        self._db = db
        self._notifier = notifier
        self._typing = typing

    async def wait[T](
        self, viewer: Viewer, seconds: float, attempt: Callable[[], Awaitable[Attempt[T]]]
    ) -> T:
        """The first answer with news, or the one after so many seconds; also when the server stops."""
        deadline = trio.current_time() + seconds
        first_counts: object = None
        with self._notifier.subscribe(()) as subscription:
            while True:
                if seconds > 0:
                    subscription.watch(self._keys(viewer))
                    subscription.rearm()
                self._typing.expire()
                with self._notifier.turns.request(OURS):
                    answer, is_empty, counts = await attempt()
                first_counts = first_counts or counts
                if not is_empty or counts != first_counts or trio.current_time() >= deadline:
                    return answer
                woken = await subscription.wait(min(deadline, self._typing.next_expiry()))
                if self._notifier.closed or (not woken and trio.current_time() >= deadline):
                    return answer

    def _keys(self, viewer: Viewer) -> list[str]:
        """What wakes a poll: any of the user's rooms may have news."""
        rooms = sync_rooms.joined_room_ids(self._db.read, viewer.user_id)
        return [
            f"user:{viewer.user_id}",
            f"device:{viewer.user_id}|{viewer.device_id}",
            *(f"room:{room_id}" for room_id in rooms),
        ]
