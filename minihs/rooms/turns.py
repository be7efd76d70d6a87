# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: work for one server gives way while something is under way for another that took less.

All work shares one loop, so a server that sends without end would be in the way of every step of all others.
Here each server has an account of the time that was spent on it. Work on its PDUs stops between two steps
while something is under way for somebody with a smaller account. With nobody else there it runs at full
speed, beside one that sends as much it gets half, and one that says a word now and then hardly notices it.
That is fair queueing with the loop as the line (Demers, Keshav, Shenker 1989), with two bounds, since what
is under way may be waiting for something else, or be made to wait in order to hold up the others: it has
precedence for PRECEDENCE only, and pauses come to no more than PATIENCE times the work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

PRECEDENCE = 0.25
"""Seconds for which something under way goes before the work for others."""
PATIENCE = 8.0
"""Seconds of pauses for each second of work."""
STEP = 0.0005
"""Seconds. No step of work counts as less."""
STEPS_AT_ONCE, SHORT_STEP = 5, 0.0001
"""So many steps of so many seconds are taken in one go, fewer of longer ones, as long as nobody else is
about: a turn of the loop costs a quarter of a short step."""
LONG_STEP = 0.005
"""Seconds. A step that took longer is followed by as long a rest, whoever is there: what came meanwhile is
still unread in its socket."""
MAX_REST = 1.0
HALF_LIFE = 5.0
"""Seconds after which half of what was spent on a server is forgotten."""
MAX_ACCOUNTS = 1_000
"""When there are more, the smaller half is closed."""

OURS = ""
"""The account of our own users."""


@dataclass(slots=True)
class _Account:
    spent: float
    """Seconds, as of `then`."""
    then: float
    """Time of trio's."""
    patience: float = 0.0
    """Seconds for which work may yet be paused."""
    steps: float = 0.0
    """Short ones taken in one go by now."""


@dataclass(slots=True, eq=False)
class Matter:
    """Something that is under way for somebody."""

    account: str
    room_id: str | None
    """The room that has to deal with it; None: a request."""
    until: float
    """It has precedence until this time of trio's."""
    since: int | None = None
    """From this place in the inbox on; None: it is not in there yet."""


class Turns:
    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._requests: set[Matter] = set()
        self._in_rooms: dict[tuple[str, str], Matter] = {}
        """By room and account."""
        self._ended = trio.Event()
        self._latest = OURS
        """Whom the latest step was for."""
        self._shared_until = 0.0
        """Time of trio's. By then several will have been about lately."""

    @contextmanager
    def request(self, account: str) -> Iterator[None]:
        """Something of this server is being looked at."""
        matter = Matter(account, None, trio.current_time() + PRECEDENCE)
        self._requests.add(matter)
        try:
            yield
        finally:
            self._requests.discard(matter)
            self._wake()

    def expect(self, rooms: Collection[str], account: str) -> None:
        """These rooms are about to get something from this server. (One of them may be through with it before
        who handed it in knows that it is in the inbox.)"""
        now = trio.current_time()
        for key in ((room_id, account) for room_id in rooms):
            if key not in self._in_rooms or self._in_rooms[key].until <= now:
                self._in_rooms[key] = Matter(account, key[0], now + PRECEDENCE)

    def hand_to(self, room_id: str, account: str, since: int) -> None:
        """The room has got it, at that place of its inbox."""
        matter = self._in_rooms.get((room_id, account))
        if matter is not None and matter.since is None:
            matter.until, matter.since = trio.current_time() + PRECEDENCE, since

    def dealt_with(self, room_id: str, accounts: Collection[str]) -> None:
        """The room is through with what it had from these servers."""
        for account in accounts:
            if self._in_rooms.pop((room_id, account), None) is not None:
                self._wake()

    def set_aside(self, room_id: str) -> None:
        """The room has to ask other servers: how long that takes shall hold up nobody else."""
        self.dealt_with(room_id, [account for room, account in self._in_rooms if room == room_id])

    def before(self, account: str, room_id: str) -> list[Matter]:
        """What the room has got just now from servers with smaller accounts than this one."""
        others = [
            matter
            for matter in self._in_rooms.values()
            if matter.account != account and matter.room_id == room_id and matter.since is not None
        ]
        if not others:
            return []
        now = trio.current_time()
        return [matter for matter in others if self._goes_before(matter, account, now)]

    async def give_way(self, account: str, started: float, room_id: str | None = None) -> None:
        """Between two steps of work for this server, the last of which began at that time of trio's. What
        waits for the same room is no reason to stop: it waits for this very work.
        """
        now = trio.current_time()
        await self._pause(self._charge(account, now - started, now), now - started, account, room_id)

    async def after_step(self, account: str, started: float, room_id: str | None = None) -> None:
        """The same after one of many steps. Several short ones are taken in one go if there were none for
        anybody else within HALF_LIFE."""
        now = trio.current_time()
        book = self._charge(account, now - started, now)
        book.steps += max(1.0, (now - started) / SHORT_STEP)
        if book.steps >= STEPS_AT_ONCE or now < self._shared_until:
            await self._pause(book, now - started, account, room_id)

    async def _pause(self, book: _Account, used: float, account: str, room_id: str | None) -> None:
        book.steps = 0.0
        if used >= LONG_STEP:
            await trio.sleep(min(used, MAX_REST))
        else:
            await trio.lowlevel.checkpoint()
        if not self._must_wait(account, room_id):
            return
        deadline = trio.current_time() + book.patience
        while self._must_wait(account, room_id) and trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                await self._ended.wait()
        book.patience = max(deadline - trio.current_time(), 0.0)

    def _wake(self) -> None:
        ended, self._ended = self._ended, trio.Event()
        ended.set()

    def _must_wait(self, account: str, room_id: str | None) -> bool:
        now = trio.current_time()
        for key, matter in list(self._in_rooms.items()):
            if matter.until <= now:
                del self._in_rooms[key]
            elif matter.room_id != room_id and self._goes_before(matter, account, now):
                return True
        return any(self._goes_before(matter, account, now) for matter in self._requests)

    def _goes_before(self, matter: Matter, account: str, now: float) -> bool:
        return (
            matter.account != account
            and now < matter.until
            and self._spent(matter.account, now) + 2 * STEP < self._spent(account, now)
        )

    def _spent(self, account: str, now: float) -> float:
        book = self._accounts.get(account)
        return 0.0 if book is None else book.spent * 0.5 ** ((now - book.then) / HALF_LIFE)

    def _charge(self, account: str, used: float, now: float) -> _Account:
        seconds = max(used, STEP)
        if account != self._latest:
            self._latest, self._shared_until = account, now + HALF_LIFE
        book = self._accounts.get(account)
        if book is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._close_half()
            book = self._accounts[account] = _Account(0.0, now)
        book.spent, book.then = self._spent(account, now) + seconds, now
        book.patience = min(book.patience + PATIENCE * seconds, PRECEDENCE)
        return book

    def _close_half(self) -> None:
        largest = sorted(self._accounts.items(), key=lambda item: item[1].spent, reverse=True)
        self._accounts = dict(largest[: MAX_ACCOUNTS // 2])
