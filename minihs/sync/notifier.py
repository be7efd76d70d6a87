# SPDX-License-Identifier: Apache-2.0
"""Wakes those who wait for news: long polls of /sync, and whoever else subscribes to keys of the change log.

The store calls `wake` after each commit with the keys that its closures named ("room:<id>", "user:<id>",
"device:<user>|<device>"); what lives in memory only (typing) calls it too. Waiting costs nothing: no
polling, no timer besides the waiter's own deadline.

A waiter subscribes *before* it reads, so that nothing falls between its reading and its waiting:

    with notifier.subscribe(keys) as subscription:
        while (answer := read()) is empty:
            if not await subscription.wait(deadline): break
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import trio

from minihs.rooms.turns import Turns


class Subscription:
    """One waiter and the keys it waits for. Owned by the task that waits."""

    __slots__ = ("_event", "_keys", "_notifier", "woken_by")

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._keys: frozenset[str] = frozenset()
        self._event = trio.Event()
        self.woken_by: set[str] = set()
        """Of the keys, since `rearm`."""

    def watch(self, keys: Iterable[str]) -> None:
        """Wait for these keys from now on, in place of those before."""
        wanted = frozenset(keys)
        self._notifier.remove(self, self._keys - wanted)
        self._notifier.add(self, wanted - self._keys)
        self._keys = wanted

    def rearm(self) -> None:
        """What woke us so far is being read now; call before reading."""
        if self._event.is_set():
            self._event = trio.Event()
            self.woken_by.clear()

    def fire(self, key: str) -> None:
        self.woken_by.add(key)
        self._event.set()

    async def wait(self, deadline: float) -> bool:
        """Until something woke us since `rearm`. False: the deadline (trio's clock) came first."""
        if not self._notifier.closed:
            with trio.move_on_at(deadline):
                await self._event.wait()
        return self._event.is_set()


class Notifier:
    """Keys and who waits for them. Lives on the event loop; never call it from a thread."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        """For who answers those that were woken: they go before other servers' bulk."""
        self._waiting: dict[str, set[Subscription]] = {}
        self.closed = False

    def close(self) -> None:
        """Nobody waits any more: the server is stopping, and its clients are to come back when it is up."""
        self.closed = True
        self.wake(list(self._waiting))

    def wake(self, keys: Iterable[str]) -> None:
        for key in keys:
            for subscription in self._waiting.get(key, ()):
                subscription.fire(key)

    @contextmanager
    def subscribe(self, keys: Iterable[str]) -> Iterator[Subscription]:
        subscription = Subscription(self)
        subscription.watch(keys)
        try:
            yield subscription
        finally:
            subscription.watch(())

    def add(self, subscription: Subscription, keys: Iterable[str]) -> None:
        for key in keys:
            self._waiting.setdefault(key, set()).add(subscription)

    def remove(self, subscription: Subscription, keys: Iterable[str]) -> None:
        for key in keys:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.discard(subscription)
                if not waiting:
                    del self._waiting[key]

    def __len__(self) -> int:
        """How many keys somebody waits for."""
        return len(self._waiting)
