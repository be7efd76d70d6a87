# SPDX-License-Identifier: Apache-2.0
"""Asking other servers for history before what we have, when a client scrolls there.

Backfilled events pass checks 1–5 (never soft-failed, never anybody's news), get their state by going back
from what we know, and are placed before the event that names them. Spec: server-server-api, "Backfilling".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog

from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import domain_of
from minihs.rooms.admission import Source
from minihs.rooms.asking import Asking
from minihs.rooms.authorise import MissingAuthEvents, Verdict, judge
from minihs.rooms.batch import Batch
from minihs.rooms.entry import Entry
from minihs.rooms.gap_state import Defer, GapState
from minihs.rooms.ordering import by_prev_events
from minihs.rooms.parts import Parts
from minihs.rooms.placement import (
    follows_another_room,
    has_taken_id,
    is_placed,
    link_awaited_redaction,
    link_redaction,
    state_after,
)
from minihs.rooms.state import StateRef
from minihs.store import events, rooms
from minihs.store.events import Outcome

log = structlog.get_logger()

MAX_EVENTS = 100
"""Events asked for at once."""
MAX_EXTREMITIES = 5
"""Places that are asked about at once."""
EVENTS_AROUND = 20
"""Events fetched where a client jumps into the past."""
MAX_REFERENCES = 4_000
"""prev_events of all that is placed of one answer, as the states at them are put together. 200 events of the
size of today have no more; old ones may have more each."""
MAX_STATES = 5
"""States fetched for one answer. An honest one needs that before its earliest event, once for each fork."""


class Backfill:
    def __init__(self, parts: Parts, asking: Asking, states: GapState) -> None:
        self._parts = parts
        self._asking = asking
        self._states = states

    async def before(self, room_id: str, topo: int, limit: int) -> bool:
        """Fetch events before this place of the timeline, if we lack any. True if we got some.

        Not while we don't know the room's members: the state there would have to be fetched with all of them,
        and they are on their way.
        """
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident or room.partial:
            return False
        return await self._parts.tasks.run(room_id, lambda: self._before(room_id, topo, limit))

    async def _before(self, room_id: str, topo: int, limit: int) -> bool:
        batch = self._parts.batch(self._parts.head(room_id))
        gaps = [
            (event_id, namer)
            for event_id, named_at, namer in rooms.backward_extremities(
                self._parts.db.read, batch.head.room_nid
            )
            if named_at <= topo + 1
        ][:MAX_EXTREMITIES]
        if not gaps:
            return False
        wanted = [event_id for event_id, _ in gaps]
        # Who built upon it has it, and may be the only one.
        hosts = self._asking.residents(batch, self._sender_of(gaps[0][1]))
        federation = self._parts.federation
        limit = max(1, min(limit, MAX_EVENTS))
        for host in hosts:
            try:
                pdus = await self._asking.ask(
                    batch, partial(federation.backfill, host, room_id, wanted, limit)
                )
            except FederationError as error:
                log.info("could not backfill", room=room_id, error=str(error))
                continue
            if await self._store(batch, pdus[: 2 * MAX_EVENTS], host):
                return True
        return await self._behind(batch, wanted[0], hosts, limit)

    def _sender_of(self, nid: int) -> str | None:
        """The server of the user who sent an event."""
        stored = events.get_nids(self._parts.db.read, [nid]).get(nid)
        return None if stored is None else domain_of(stored.event.sender)

    async def _behind(self, batch: Batch, hidden: str, hosts: Sequence[str], limit: int) -> bool:
        """What is before an event that nobody shows, as those who have rejected it know. Else one bad event
        between the good ones would end the history for all newcomers.

        Nothing in an answer proves that it is before that event. So this comes after all that we ask had the
        chance to show it, and more than half of them answered: an honest server that did not reject it would
        have shown it.
        """
        federation, room_id, room_nid = self._parts.federation, batch.head.room_id, batch.head.room_nid
        answers: dict[str, list[Event]] = {}
        for host in hosts:
            try:
                pdus = await self._asking.ask(
                    batch, partial(federation.backfill, host, room_id, [hidden], limit)
                )
            except FederationError as error:
                log.info("could not backfill", room=room_id, error=str(error))
                continue
            answers[host], _ = await self._asking.admit(batch, pdus[: 2 * MAX_EVENTS], Source.BACKFILL)
            if any(event.event_id == hidden for event in answers[host]):
                return False
        if 2 * len(answers) <= len(hosts):
            return False
        for host, shown in answers.items():
            is_known = all(is_placed(batch, event.event_id) for event in shown)
            if shown and (is_known or await self._store_all(batch, shown, host, hidden=hidden)):
                log.info("passed over an event that nobody shows", room=room_id, event_id=hidden)
                await self._parts.db.write(lambda tx: rooms.pass_over(tx, room_nid, hidden))
                return True
        return False

    async def around(self, room_id: str, event_id: str, host: str) -> bool:
        """Fetch one event from somewhere in a gap, with a few before it. True if it has its place now.

        It stands alone there until the history between it and what we have is fetched.
        """
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident or room.partial:
            return False
        return await self._parts.tasks.run(room_id, lambda: self._around(room_id, event_id, host))

    async def _around(self, room_id: str, event_id: str, host: str) -> bool:
        batch = self._parts.batch(self._parts.head(room_id))
        if is_placed(batch, event_id):
            return False
        call = partial(self._parts.federation.backfill, host, room_id, [event_id], EVENTS_AROUND)
        try:
            pdus = await self._asking.ask(batch, call)
        except FederationError as error:
            log.info("could not fetch an event of the past", room=room_id, error=str(error))
            return False
        await self._store(batch, pdus[: 2 * EVENTS_AROUND], host, island=event_id)
        return is_placed(batch, event_id)

    async def _store(self, batch: Batch, pdus: list[object], host: str, *, island: str | None = None) -> bool:
        admitted, _ = await self._asking.admit(batch, pdus, Source.BACKFILL)
        return await self._store_all(batch, admitted, host, island=island)

    async def _store_all(
        self,
        batch: Batch,
        admitted: list[Event],
        host: str,
        *,
        island: str | None = None,
        hidden: str | None = None,
    ) -> bool:
        found = [
            event
            for event in admitted
            if not is_placed(batch, event.event_id) and not has_taken_id(batch.graph, event)
        ]
        # Parents first, so that the state at the oldest, fetched from the other server, carries on to the
        # newest.
        topos = self._places(batch, found, island, hidden)
        stored, states, references = 0, 0, 0
        for event in by_prev_events(event for event in found if event.event_id in topos):
            references += len(event.prev_events)
            try:
                if references > MAX_REFERENCES:
                    raise Defer("too many states would have to be put together")
                if any(not is_placed(batch, prev_id) for prev_id in event.prev_events):
                    states += 1
                    if states > MAX_STATES:
                        raise Defer("too many states would have to be asked for")
                await self._place(batch, event, topos[event.event_id], host)
                stored += 1
            except Defer as error:
                log.info("could not place an event of the past", event_id=event.event_id, missing=str(error))
            except Exception as error:  # the boundary of one PDU: the rest of history is not to suffer
                log.error("an event of the past made its step fail", event_id=event.event_id, exc_info=error)
        await batch.commit()
        return stored > 0

    def _places(
        self, batch: Batch, found: list[Event], island: str | None, hidden: str | None
    ) -> dict[str, int]:
        """Each event goes just before the first of those that name it. What nobody names has no place, but
        for the island: it goes before the gap, as far as its depth is below that of the event after it. And
        but for what is before a hidden event.
        """
        topos = rooms.places_naming(self._parts.db.read, batch.head.room_nid)
        topos = {event_id: topo - 1 for event_id, topo in topos.items()}
        if hidden in topos:
            named = {prev_id for event in found for prev_id in event.prev_events}
            for event in found:
                if event.event_id not in named:
                    topos.setdefault(event.event_id, topos[hidden] - 1)
        for event in found:
            if event.event_id == island and island not in topos:
                ends = rooms.gap_ends(self._parts.db.read, batch.head.room_nid)
                later = [(depth, topo) for topo, depth in ends if depth > event.depth]
                if later:
                    depth, topo = min(later)
                    topos[island] = topo - (depth - event.depth)
        placed: dict[str, int] = {}
        for event in reversed(by_prev_events(found)):
            place = topos.get(event.event_id)
            if place is not None:
                placed[event.event_id] = place
                for prev_id in event.prev_events:
                    topos[prev_id] = min(topos.get(prev_id, place), place - 1)
        return placed

    async def _place(self, batch: Batch, event: Event, topo: int, host: str) -> None:
        now = self._parts.now()
        if follows_another_room(batch, event):
            raise Defer("a prev event is of another room")
        if all(is_placed(batch, prev_id) for prev_id in event.prev_events):
            states = [state_after(batch, prev_id)[1] for prev_id in event.prev_events]
        else:
            states = [await self._states.before(batch, event.event_id, [host], now)]
        before = batch.graph.resolve(batch.head.version, states)
        verdict = await self._judge(batch, event, before, host, now)
        entry = Entry(event, verdict.outcome, now, verdict.reason, history=True, before=before, topo=topo)
        entry.after = before if verdict.outcome is Outcome.REJECTED else before.with_event(event)
        link_awaited_redaction(batch, entry)
        if verdict.outcome is Outcome.ACCEPTED:
            link_redaction(batch, entry)
            batch.accept(entry)
        else:
            batch.add(entry)

    async def _judge(self, batch: Batch, event: Event, before: StateRef, host: str, now: int) -> Verdict:
        try:
            return judge(batch.graph, batch.head, event, before, Source.BACKFILL)
        except MissingAuthEvents as missing:
            await self._asking.fetch_auth_events(batch, event, missing.args[0], host, now)
        try:
            return judge(batch.graph, batch.head, event, before, Source.BACKFILL)
        except MissingAuthEvents as still:
            raise Defer(f"auth events {still.args[0]}") from still
