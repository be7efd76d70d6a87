# SPDX-License-Identifier: Apache-2.0
"""Fetching the state that a join by partial state lacks, in the background (rooms/partial_join.py).

Each room goes through these steps, between which a restart may come: the state before the join is asked for,
verified and authorised as that of a whole join is, all outside of the room's task; stored bit by bit as
outliers, so that nobody waits for the writer; noted as a state group (`full_group`); put in place
(rooms/partial_replay.py). Only the last of these changes anything that can be seen.

First the server is asked that we joined through. What is told must hold all that we were told at the join; if
nobody tells that for a while, whoever tells a state that lets us in is believed, as in any other join.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial as bound

import structlog
import trio

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError, RemoteProtocolError
from minihs.rooms.adoption import Adoption
from minihs.rooms.authorise import MissingAuthEvents, check_by_auth_events
from minihs.rooms.handshake import MAX_CANDIDATES, candidates
from minihs.rooms.partial_replay import Replay
from minihs.rooms.parts import Parts
from minihs.rooms.receive import Receiver
from minihs.rooms.state import StateRef
from minihs.store import events, memberships, partial, rooms, state
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.partial import PartialJoin

log = structlog.get_logger()

MAX_AT_ONCE = 2
"""Rooms whose members are fetched at the same time."""
FIRST_PAUSE_MS, MAX_PAUSE_MS = 5_000, 600_000
CRASH_PAUSE_MS = 60_000
STRICT_ATTEMPTS = 5
"""Attempts in which only a state counts that holds all that we were told at the join."""
MAX_SLEEP = 600.0
"""Seconds after which it is looked what is due even if nobody said that something is."""


class _Over(Exception):
    """We are no longer in the room by that join, or somebody else was faster."""


class Resync:
    def __init__(
        self, parts: Parts, receiver: Receiver, leave_again: Callable[[str, set[str]], Awaitable[None]]
    ) -> None:
        self._parts = parts
        self._receiver = receiver
        self._leave_again = leave_again
        self._busy: set[str] = set()
        self._not_before: dict[str, int] = {}
        """Rooms with which something went wrong here: a full disk, say, where nothing can be noted."""
        self._news = trio.Event()
        parts.db.on_commit(self._see_commit)

    def _see_commit(self, keys: frozenset[str]) -> None:
        if "partial" in keys:
            self._news.set()

    def look_again(self) -> None:
        """Something may be due: the clock was set."""
        self._news.set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                now, next_due = self._parts.now(), None
                for room_id, due in partial.waiting(self._parts.db.read):
                    if room_id in self._busy:
                        continue
                    due = max(due, self._not_before.get(room_id, 0))
                    if now < due <= now + 2 * MAX_PAUSE_MS:  # later, and the clock was set back
                        next_due = due if next_due is None else min(next_due, due)
                    elif len(self._busy) < MAX_AT_ONCE:
                        self._busy.add(room_id)
                        nursery.start_soon(self._work, room_id)
                pause = MAX_SLEEP if next_due is None else max((next_due - now) / 1000, 0.05)
                with trio.move_on_after(min(pause, MAX_SLEEP)):
                    await self._news.wait()

    async def _work(self, room_id: str) -> None:
        try:
            await self._advance(room_id)
        except _Over:
            pass
        except Exception as error:  # the boundary of one room: the others go on
            log.error("completing a room failed", room=room_id, exc_info=error)
            self._not_before[room_id] = self._parts.now() + CRASH_PAUSE_MS
        else:
            self._not_before.pop(room_id, None)
        finally:
            self._busy.discard(room_id)
            self._news.set()

    async def _advance(self, room_id: str) -> None:
        """One attempt, from wherever the last one got to."""
        room = rooms.get(self._parts.db.read, room_id)
        join = None if room is None else partial.get(self._parts.db.read, room.room_nid)
        if join is None:
            return
        if join.full_group is None and not await self._fetch(room_id, join):
            await self._try_later(room_id)
            return
        await self._parts.tasks.run(room_id, lambda: self._finish(room_id, join.event_nid))

    async def _try_later(self, room_id: str) -> None:
        room_nid = rooms.room_nid(self._parts.db.read, room_id)
        join = None if room_nid is None else partial.get(self._parts.db.read, room_nid)
        if join is None:
            return
        pause = min(FIRST_PAUSE_MS * 2 ** min(join.attempts, 20), MAX_PAUSE_MS)
        pause = int(pause * self._parts.runtime.random.uniform(0.8, 1.2))
        log.info("the members of a room are not to be had now", room=room_id, pause_ms=pause)
        retry_at = self._parts.now() + pause
        await self._parts.db.write(lambda tx: partial.failed(tx, join.room_nid, retry_at))

    # -- the state before the join -------------------------------------------------------------------

    async def _fetch(self, room_id: str, join: PartialJoin) -> bool:
        others = rooms.hosts(self._parts.db.read, join.room_nid)
        first = join.attempts * (MAX_CANDIDATES - 1) % max(len(others), 1)  # not always the same dead ones
        for host in candidates(self._parts, [join.host], others[first:], others):
            try:
                await self._fetch_from(host, room_id, join)
            except FederationError as error:
                log.info("could not get a room's members", room=room_id, host=host, error=str(error))
            else:
                return True
        return False

    async def _fetch_from(self, host: str, room_id: str, join: PartialJoin) -> None:
        """Raises FederationError, _Over."""
        stored = events.get_nids(self._parts.db.read, [join.event_nid])[join.event_nid]
        log.info("fetching the members of a room", room=room_id, host=host, attempt=join.attempts + 1)
        async with self._parts.federation.state_at(host, room_id, stored.event.event_id) as spooled:
            adoption = Adoption(self._parts, room_id, stored.event.version)
            await adoption.read(host, spooled.auth_chain, is_state=False)
            await adoption.read(host, spooled.state, is_state=True)
            await adoption.authorise()
            self._check(host, adoption, stored.event, StateRef(stored.before_group), join)
            for event_ids in adoption.chunks():
                await self._parts.tasks.run(
                    room_id, bound(self._keep, adoption, room_id, join, event_ids), between=True
                )
            await self._parts.tasks.run(room_id, bound(self._note, adoption, room_id, join), between=True)
        log.info("have the members of a room", room=room_id, host=host, events=adoption.size)

    def _check(self, host: str, adoption: Adoption, event: Event, known: StateRef, join: PartialJoin) -> None:
        """That it is a state that our join can follow. Raises FederationError."""
        told, whole = adoption.state_ids(), adoption.state_map()
        before = self._parts.graph.full(known)
        create = whole.get(("m.room.create", ""))
        differs = [key for key, event_id in before.items() if told.get(key) != event_id]
        if create is None or ("m.room.create", "") in differs:
            raise RemoteProtocolError(host, "told a state without the room's create event")
        if differs and join.attempts < STRICT_ATTEMPTS:
            raise RemoteProtocolError(host, f"told another state than we joined by: {differs[0]}")
        try:
            verdict = check_by_auth_events(adoption, event, create)
            check_auth(event, whole)
        except (AuthError, MissingAuthEvents) as error:
            raise RemoteProtocolError(host, f"told a state that does not let us in: {error}") from error
        if verdict.outcome is not Outcome.ACCEPTED:
            raise RemoteProtocolError(host, f"told a state that does not let us in: {verdict.reason}")

    async def _keep(
        self, adoption: Adoption, room_id: str, join: PartialJoin, event_ids: Sequence[str]
    ) -> None:
        self._still(room_id, join.event_nid)
        await adoption.keep(join.room_nid, event_ids)

    async def _note(self, adoption: Adoption, room_id: str, join: PartialJoin) -> None:
        self._still(room_id, join.event_nid)

        def write(tx: Tx) -> None:
            group = state.new_group(tx, join.room_nid, None, adoption.state_nids(tx))
            partial.set_full(tx, join.room_nid, group)

        await self._parts.db.write(write)

    def _still(self, room_id: str, join_nid: int) -> PartialJoin:
        """We are still in the room by that join. Raises _Over."""
        room = rooms.get(self._parts.db.read, room_id)
        join = None if room is None else partial.get(self._parts.db.read, room.room_nid)
        if join is None or join.event_nid != join_nid:
            raise _Over
        return join

    # -- in its place --------------------------------------------------------------------------------

    async def _finish(self, room_id: str, join_nid: int) -> None:
        """Runs in the room's task."""
        join = self._still(room_id, join_nid)
        left = memberships.local_left(self._parts.db.read, join.room_nid)
        await Replay(self._parts, room_id, join).run()
        self._receiver.room_has_work(room_id)
        await self._leave_again(room_id, left)
