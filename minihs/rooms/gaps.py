# SPDX-License-Identifier: Apache-2.0
"""Taking in an event whose prev or auth events we may not have.

First the events between are asked for, a bounded walk back from the new event to what we know
(get_missing_events). Where that does not connect, the state at the missing parents is fetched
(rooms/gap_state.py), and the gap stays in the timeline for a client to page into. What is less deep than our
join is not asked for: it is history, and here it would be judged, and shown, as if it were new. Spec:
server-server-api, "Backfilling and retrieving missing events".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError
from minihs.rooms.admission import Source
from minihs.rooms.asking import Asking
from minihs.rooms.authorise import MissingAuthEvents, Unsure
from minihs.rooms.batch import Batch
from minihs.rooms.gap_state import Defer, GapState
from minihs.rooms.head import NotInRoom
from minihs.rooms.ordering import by_prev_events
from minihs.rooms.parts import Parts
from minihs.rooms.placement import (
    follows_another_room,
    is_placed,
    is_settled,
    missing_prevs,
    place_live,
    reject_placeless,
)
from minihs.rooms.policy import Policies, is_recommended, policy_server_of
from minihs.rooms.state import StateRef
from minihs.store import rooms

__all__ = ["Defer", "Gaps"]

log = structlog.get_logger()

MAX_ROUNDS = 10
"""Calls of get_missing_events for one gap; each gives up to 20 events."""
MAX_MISSING = 100
"""Events taken from one answer."""
MAX_STATES = 20
"""States fetched for one gap. What is still missing then is left for the next try."""
MAX_SECONDS = 120.0
"""Asking for what one event lacks takes no longer, but for the question that is under way."""


@dataclass(slots=True)
class _Budget:
    """How many states may still be asked for, and until when."""

    left: int
    deadline: float

    def take(self, prev_id: str) -> None:
        """Raises Defer."""
        self.left -= 1
        if self.left < 0 or trio.current_time() > self.deadline:
            raise Defer(f"more than can be asked for at once, as the state at {prev_id}")


class Gaps:
    def __init__(self, parts: Parts, asking: Asking, states: GapState) -> None:
        self._parts = parts
        self._asking = asking
        self._states = states
        self._policies = Policies(parts)

    async def take(self, batch: Batch, event: Event, origin: str, received_ts: int, source: Source) -> None:
        """Give an event its place, and what is missing before it. May write the batch on the way. Raises
        Defer."""
        if is_settled(batch.graph, event) or is_placed(batch, event.event_id):
            return
        await self.take_new(batch, event, origin, received_ts, source, missing_prevs(batch, event))

    @asynccontextmanager
    async def taking(self, event: Event, origin: str, source: Source) -> AsyncIterator[Batch]:
        """In the room's task: `take`, then the block, which sees the batch, then the commit. On Defer what
        was found before the event is kept; after any other exception nothing is."""
        batch = self._parts.batch(self._parts.take_head(event.room_id))
        try:
            await self.take(batch, event, origin, self._parts.now(), source)
            yield batch
            await batch.commit()
        except Defer:
            await batch.commit()
            raise
        except BaseException:
            batch.discard()
            raise

    async def take_new(
        self,
        batch: Batch,
        event: Event,
        origin: str,
        received_ts: int,
        source: Source,
        missing: Sequence[str],
    ) -> None:
        """The same for an event that is neither settled nor placed; `missing`: its `missing_prevs`."""
        is_full = batch.head.partial is not None and batch.head.partial.is_full
        known = _known_states(batch, event) if missing else {}
        if known.keys() >= set(missing) and not is_full:
            await self._place(batch, event, origin, received_ts, source, known)
        elif follows_another_room(batch, event):
            reject_placeless(batch, event, received_ts, "a prev event is of another room")
        elif is_full:
            raise Defer("the members of the room")
        else:
            await self._fill(batch, event, origin, received_ts, source)

    async def _fill(self, batch: Batch, event: Event, origin: str, received_ts: int, source: Source) -> None:
        deadline = trio.current_time() + MAX_SECONDS
        collected = await self._walk_back(batch, event, origin, deadline)
        budget = _Budget(MAX_STATES, deadline)
        for found in by_prev_events(collected.values()):
            if is_settled(batch.graph, found) or is_placed(batch, found.event_id):
                continue
            if found is event:
                states = await self._states_before(batch, event, origin, received_ts, budget)
                await self._place(batch, event, origin, received_ts, source, states)
            elif batch.head.partial is None or not _lacking(batch, found):
                await self._place_between(batch, found, origin, received_ts, budget)

    async def _states_before(
        self, batch: Batch, event: Event, origin: str, received_ts: int, budget: _Budget
    ) -> dict[str, StateRef]:
        """The states after those of its parents that have no place here. Raises Defer."""
        states = _known_states(batch, event)
        if not follows_another_room(batch, event):
            for prev_id in _lacking(batch, event):
                budget.take(prev_id)
                states[prev_id] = await self._states.after(
                    batch, prev_id, event.event_id, origin, received_ts
                )
        return states

    async def _place_between(
        self, batch: Batch, event: Event, origin: str, received_ts: int, budget: _Budget
    ) -> None:
        """An event before the one that we were sent. If it can't be placed, there stays a gap: what was built
        on an event that nobody shows us must not keep out what honest servers then built on it.
        """
        try:
            states = await self._states_before(batch, event, origin, received_ts, budget)
            await self._place(batch, event, origin, received_ts, Source.MISSING_EVENTS, states)
        except NotInRoom:
            raise
        except Defer as reason:
            log.info("could not place a missing event", event_id=event.event_id, missing=str(reason))
        except Exception as error:  # the boundary of one PDU: those after it go on
            log.error("a missing event made its step fail", event_id=event.event_id, exc_info=error)

    async def _place(
        self,
        batch: Batch,
        event: Event,
        origin: str,
        received_ts: int,
        source: Source,
        gap_states: dict[str, StateRef] | None = None,
    ) -> None:
        """`place_live`, after fetching what is missing: auth events, a policy signature. Raises Defer."""
        event = await self._with_policy(batch, event, source)
        started = trio.current_time()
        try:
            try:
                place_live(batch, event, received_ts, source, gap_states)
            except MissingAuthEvents as missing:
                await self._asking.fetch_auth_events(batch, event, missing.args[0], origin, received_ts)
                place_live(batch, event, received_ts, source, gap_states)
        except MissingAuthEvents as still:
            raise Defer(f"auth events {still.args[0]}") from still
        except Unsure as error:
            raise Defer(f"members of the room: {error}") from error
        await self._parts.turns.after_step(origin, started, batch.head.room_id)

    async def _with_policy(self, batch: Batch, event: Event, source: Source) -> Event:
        """The event with the policy server's signature, if the room has one and it signs."""
        if "policy" not in source.checks:
            return event
        policy = policy_server_of(batch.graph, batch.head)
        if policy is None or is_recommended(policy, event):
            return event
        return await self._asking.ask(batch, partial(self._policies.sign_others, policy, event))

    async def _walk_back(self, batch: Batch, event: Event, origin: str, deadline: float) -> dict[str, Event]:
        """The event and those found between it and what we know, back to our join."""
        floor = rooms.came_in_at(self._parts.db.read, batch.head.room_nid)
        collected = {event.event_id: event}
        asked: set[str] = set()
        for _ in range(MAX_ROUNDS):
            latest = [
                found.event_id
                for found in collected.values()
                if found.event_id not in asked
                and found.depth > floor
                and any(prev_id not in collected for prev_id in _lacking(batch, found))
            ][:20]
            if not latest or trio.current_time() > deadline:
                break
            asked.update(latest)
            named = {prev_id for found in collected.values() for prev_id in _lacking(batch, found)}
            new = {
                found.event_id: found
                for found in await self._ask_missing(batch, latest, origin, floor)
                if found.depth >= floor
            }
            collected |= _connected(batch, new, named - collected.keys())
        return collected

    async def _ask_missing(self, batch: Batch, latest: Sequence[str], origin: str, floor: int) -> list[Event]:
        federation, room_id = self._parts.federation, batch.head.room_id
        for host in self._asking.residents(batch, origin):
            earliest = list(batch.head.tips)[:20]
            try:
                pdus = await self._asking.ask(
                    batch,
                    partial(
                        federation.get_missing_events,
                        host,
                        room_id,
                        earliest=earliest,
                        latest=latest,
                        limit=20,
                        min_depth=floor,
                    ),
                )
            except FederationError as error:
                log.info("could not ask for missing events", room=room_id, error=str(error))
                continue
            found, _ = await self._asking.admit(batch, pdus[:MAX_MISSING], Source.MISSING_EVENTS)
            if found:
                return found
        return []


def _connected(batch: Batch, events: dict[str, Event], named: set[str]) -> dict[str, Event]:
    """Those that are named as parents, and their ancestors down to what we have: not whatever else was put
    into an answer. An answer rightly goes on below what we have, where that isn't one of our newest
    events."""
    found: dict[str, Event] = {}
    waiting = list(named)
    while waiting:
        event = events.get(waiting.pop())
        if event is not None and event.event_id not in found:
            found[event.event_id] = event
            waiting.extend(_lacking(batch, event))
    return found


def _known_states(batch: Batch, event: Event) -> dict[str, StateRef]:
    """The states after parents that we lack, where we know them nevertheless. What others said while we
    joined is built on the same event as our join is."""
    partial = batch.head.partial
    if partial is None or partial.prev_id is None or is_placed(batch, partial.prev_id):
        return {}
    return {partial.prev_id: partial.before} if partial.prev_id in event.prev_events else {}


def _lacking(batch: Batch, event: Event) -> list[str]:
    """The parents at which the state is not known."""
    known = _known_states(batch, event)
    return [prev_id for prev_id in missing_prevs(batch, event) if prev_id not in known]
