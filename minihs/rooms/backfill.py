# SPDX-License-Identifier: Apache-2.0
"""Asking other servers for history before what we have, when a client scrolls there.

Backfilled events pass checks 1–5 (never soft-failed, never anybody's news), get their state by going back
from what we know, and are placed before the event that names them. Spec: server-server-api, "Backfilling".
"""

from __future__ import annotations

import structlog

from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError
from minihs.rooms.admission import Source, admit
from minihs.rooms.authorise import MissingAuthEvents, judge
from minihs.rooms.batch import Batch, Entry
from minihs.rooms.gaps import Defer, Gaps
from minihs.rooms.ordering import by_prev_events
from minihs.rooms.parts import Parts
from minihs.rooms.placement import is_placed, link_awaited_redaction, link_redaction, state_after
from minihs.rooms.state import StateRef
from minihs.store import rooms
from minihs.store.events import Outcome

log = structlog.get_logger()

MAX_EVENTS = 100


class Backfill:
    def __init__(self, parts: Parts, gaps: Gaps) -> None:
        self._parts = parts
        self._gaps = gaps

    async def before(self, room_id: str, topo: int, limit: int) -> bool:
        """Fetch events before this place of the timeline, if we lack any. True if something new was stored."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:
            return False
        return await self._parts.tasks.run(room_id, lambda: self._before(room_id, topo, limit))

    async def _before(self, room_id: str, topo: int, limit: int) -> bool:
        head = self._parts.head(room_id)
        missing = [
            event_id
            for event_id, successor_topo, _ in rooms.backward_extremities(self._parts.db.read, head.room_nid)
            if successor_topo <= topo + 1
        ]
        wanted = missing[:5]
        if not wanted:
            return False
        batch = self._parts.batch(head)
        for host in self._gaps.residents(batch, ""):
            if not host:
                continue
            try:
                pdus = await self._parts.federation.backfill(
                    host, room_id, wanted, max(1, min(limit, MAX_EVENTS))
                )
            except FederationError as error:
                log.info("could not backfill", room=room_id, host=host, error=str(error))
                continue
            if await self._store(batch, pdus[: 2 * MAX_EVENTS], host):
                return True
        return False

    async def _store(self, batch: Batch, pdus: list[object], host: str) -> bool:
        results = await admit(
            pdus,
            batch.head.version,
            batch.head.room_id,
            keys=self._parts.keys,
            runtime=self._parts.runtime,
        )
        found = [
            result
            for result in results
            if isinstance(result, Event) and not is_placed(batch, result.event_id)
        ]
        if not found:
            return False
        topos = self._places(batch, found)
        stored = 0
        # Parents first, so that the state at the oldest, fetched from the other server, carries on to the
        # newest.
        for event in by_prev_events(found):
            try:
                await self._place(batch, event, topos[event.event_id], host)
                stored += 1
            except Defer as error:
                log.info("could not place an event of the past", event=event.event_id, missing=str(error))
        await batch.commit()
        return stored > 0

    def _places(self, batch: Batch, found: list[Event]) -> dict[str, int]:
        """Each event goes just before the first of those that name it."""
        named_by = rooms.places_naming(self._parts.db.read, batch.head.room_nid)
        topos: dict[str, int] = {}
        for event in reversed(by_prev_events(found)):
            place = topos.get(event.event_id)
            if place is None:
                place = named_by.get(event.event_id, batch.head.max_topo()) - 1
                topos[event.event_id] = place
            for prev_id in event.prev_events:
                topos[prev_id] = min(topos.get(prev_id, place), place - 1)
        return topos

    async def _place(self, batch: Batch, event: Event, topo: int, host: str) -> None:
        now = self._parts.now()
        states: list[StateRef] = []
        for prev_id in event.prev_events:
            if is_placed(batch, prev_id):
                states.append(state_after(batch, prev_id)[1])
        if len(states) < len(event.prev_events):
            states = [await self._gaps.state_before(batch, event, host, now)]
        before = batch.graph.resolve(batch.head.version, states)
        try:
            verdict = judge(batch.graph, batch.head, event, before, Source.BACKFILL)
        except MissingAuthEvents as missing:
            await batch.commit()
            await self._gaps.fetch_auth_events(batch, event, missing.args[0], host, now)
            try:
                verdict = judge(batch.graph, batch.head, event, before, Source.BACKFILL)
            except MissingAuthEvents as still:
                raise Defer(f"auth events {still.args[0]}") from still
        entry = Entry(event, verdict.outcome, now, verdict.reason, history=True, before=before, topo=topo)
        entry.after = before if verdict.outcome is Outcome.REJECTED else before.with_event(event)
        if verdict.outcome is Outcome.ACCEPTED:
            link_redaction(batch, entry)
        link_awaited_redaction(batch, entry)
        batch.add(entry)
