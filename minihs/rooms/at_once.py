# SPDX-License-Identifier: Apache-2.0
"""Giving the events of a transaction their places at once, by the commit that holds its answer.

Most transactions follow what we have, in a room where nobody else is at work just now. By way of the inbox
they would be written twice, and the disk waited for twice. What needs more than the room itself (a parent,
an auth event, a policy server's signature, the members of a room that we have only just joined) goes by the
inbox, where the answer doesn't wait for it. So does everything if anything fails in here: there the step of
each PDU is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog
import trio

from minihs.matrix.event import Event
from minihs.rooms.admission import Source
from minihs.rooms.authorise import MissingAuthEvents
from minihs.rooms.batch import Batch
from minihs.rooms.head import NotInRoom
from minihs.rooms.parts import Parts
from minihs.rooms.placement import completes, is_settled, missing_prevs, place_live
from minihs.rooms.policy import is_recommended, policy_server_of
from minihs.rooms.receive import Receiver
from minihs.store import inbox, rooms
from minihs.store.database import Tx

log = structlog.get_logger()

MAX_SECONDS = 0.25
"""What has no place by then goes by the inbox: the answer waits for no room that is slow."""

type Write = Callable[[Tx, Sequence[Event]], dict[str, int]]
"""Writes what else the transaction holds, and puts these of its events into the inbox. Returns the place of
the first of each room there."""


class AtOnce:
    def __init__(self, parts: Parts, receiver: Receiver) -> None:
        self._parts = parts
        self._receiver = receiver

    async def take(self, events: Sequence[Event], origin: str, write: Write) -> bool:
        """Commit the transaction with these events, which are admitted. False: nothing was written, and it
        has to go by the inbox."""
        of_rooms = {event.room_id for event in events}
        if len(of_rooms) != 1:
            return False
        (room_id,) = of_rooms
        if room_id in self._receiver.joining:
            return False
        taken = await self._parts.tasks.run_if_idle(
            room_id, partial(self._take, room_id, events, origin, write)
        )
        return taken is True

    async def _take(self, room_id: str, events: Sequence[Event], origin: str, write: Write) -> bool:
        """In the room's task."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:  # a head may be kept of a room that we have left
            return False
        try:
            head = self._parts.take_head(room_id)
        except NotInRoom:
            return False
        if head.partial is not None or policy_server_of(self._parts.graph, head) is not None:
            self._parts.heads.keep(head)
            return False
        batch = self._parts.batch(head)
        try:
            left = await self._place(batch, events, origin)
            if not batch.entries:
                self._parts.heads.keep(head)
                return False
            firsts: dict[str, int] = {}
            batch.also = lambda tx: firsts.update(write(tx, left))
            self._receiver.have_parsed(left)
            self._parts.turns.expect({event.room_id for event in left}, origin)
            await batch.commit()
        except BaseException as error:
            batch.discard()
            if not isinstance(error, Exception):
                raise
            log.info("events go by the inbox", room=room_id, origin=origin, because=repr(error))
            return False
        if room_id in firsts:
            self._parts.turns.hand_to(room_id, origin, firsts[room_id])
        self._receiver.follow_up(batch.head)
        return True

    async def _place(self, batch: Batch, events: Sequence[Event], origin: str) -> list[Event]:
        """Returns those that the inbox has to take."""
        turns, room_id, now = self._parts.turns, batch.head.room_id, self._parts.now()
        event_ids = [event.event_id for event in events]
        batch.look_ahead(event_ids)
        # Those have their own time to be tried, or none: they may have made their step fail.
        held = inbox.held_among(self._parts.db.read, event_ids)
        left: list[Event] = []
        deadline = trio.current_time() + MAX_SECONDS
        for place, event in enumerate(events):
            started = trio.current_time()
            # Who is less loud shall not wait for all of this.
            if place > 0 and (started >= deadline or turns.before(origin, room_id)):
                return left + list(events[place:])
            if not _is_dealt_with(batch, event) and (
                event.event_id in held or not _place_one(batch, event, now)
            ):
                left.append(event)
            await turns.after_step(origin, started, room_id)
        return left


def _is_dealt_with(batch: Batch, event: Event) -> bool:
    if event.event_id in batch.placed:
        return True
    return is_settled(batch.graph, event) and not completes(batch.graph, event)


def _place_one(batch: Batch, event: Event, received_ts: int) -> bool:
    """False: it takes more than what is here."""
    if event.version is not batch.head.version or is_settled(batch.graph, event):
        return False
    if missing_prevs(batch, event):
        return False
    # (Of those before it in the transaction one may have designated a policy server.)
    if not is_recommended(policy_server_of(batch.graph, batch.head), event):
        return False
    try:
        place_live(batch, event, received_ts, Source.TRANSACTION)
    except MissingAuthEvents:
        return False
    return True
