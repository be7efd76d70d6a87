# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to tell, the same for /sync and for sliding sync: an answer is attempted whenever
something happens to the user, until one has news or the time is up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from minihs.rooms.turns import OURS
from minihs.store import sync_rooms
from minihs.store.byte_cache import ByteCache
from minihs.store.database import Database
from minihs.sync.client_events import Viewer
from minihs.sync.notifier import Notifier
from minihs.sync.typing import Typing

ROOMS_BYTES = 4 * 1024 * 1024
"""For which rooms the users are in who polled lately."""

KEY_BYTES = 200
"""What a room counts as, and the user."""


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
        self._rooms: ByteCache[str, tuple[str, ...]] = ByteCache(ROOMS_BYTES)
        """By the key that wakes their user, the keys of the rooms. Each change of a user's rooms wakes it."""
        db.on_commit(self._forget)

    def _forget(self, woken: frozenset[str]) -> None:
        for key in woken:
            self._rooms.drop(key)

    async def wait[T](
        self,
        viewer: Viewer,
        seconds: float,
        attempt: Callable[[], Awaitable[Attempt[T]]],
        *,
        told: object = None,
    ) -> T:
        """The first answer with news, or the one after so many seconds; also when the server stops.

        `told`: nothing happened since the client's last answer, which had these counts. So there is nothing
        to attempt before something does.
        """
        deadline = trio.current_time() + seconds
        first_counts = told
        made: Attempt[T] | None = None
        first_time = True
        with self._notifier.subscribe(()) as subscription:
            while True:
                if seconds > 0:
                    if first_time or f"user:{viewer.user_id}" in subscription.woken_by:
                        subscription.watch(self._keys(viewer))  # the user's rooms may be others now
                    subscription.rearm()
                    first_time = False
                self._typing.expire()
                if told is None or seconds <= 0:
                    with self._notifier.turns.request(OURS):
                        made = await attempt()
                    first_counts = first_counts or made.counts
                    if not made.is_empty or made.counts != first_counts or trio.current_time() >= deadline:
                        return made.answer
                told = None
                woken = await subscription.wait(min(deadline, self._typing.next_expiry()))
                at_end = self._notifier.closed or (not woken and trio.current_time() >= deadline)
                if at_end and made is not None:
                    return made.answer

    def _keys(self, viewer: Viewer) -> list[str]:
        """What wakes a poll: any of the user's rooms may have news."""
        user = f"user:{viewer.user_id}"
        rooms = self._rooms.get(user)
        if rooms is None:
            room_ids = sync_rooms.joined_room_ids(self._db.read, viewer.user_id)
            rooms = tuple(f"room:{room_id}" for room_id in room_ids)
            self._rooms.put(user, rooms, KEY_BYTES * (1 + len(rooms)))
        return [user, f"device:{viewer.user_id}|{viewer.device_id}", *rooms]
