# SPDX-License-Identifier: Apache-2.0
"""Filling gaps: an event came whose prev or auth events we don't have.

First the events between are asked for, a bounded walk back from the new event to what we know
(get_missing_events). Where that does not connect, the state at the missing parents is fetched (state_ids,
then what of it we lack), and the gap stays in the timeline for a client to page into. Spec:
server-server-api, "Retrieving event authorization information", "Backfilling and retrieving missing
events".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import structlog

from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError
from minihs.rooms.admission import Source, admit
from minihs.rooms.authorise import MissingAuthEvents
from minihs.rooms.batch import Batch
from minihs.rooms.ordering import by_auth_events, by_prev_events
from minihs.rooms.parts import Parts
from minihs.rooms.placement import add_outlier, is_placed, is_settled, missing_prevs, place_live
from minihs.rooms.state import Key, StateRef
from minihs.store import rooms

log = structlog.get_logger()

MAX_ROUNDS = 10
"""Calls of get_missing_events for one gap; each gives up to 20 events."""
MAX_STATE_EVENTS = 250_000
"""Events in the answer to state_ids; rooms of today have up to about 200,000."""
MAX_SINGLE_FETCHES = 40
"""Missing state events fetched one by one; more, and the whole state is asked for."""


class Defer(Exception):
    """What the event needs can't be had now: keep it and try again later. `.args[0]` says what is missing."""


class Gaps:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def residents(self, batch: Batch, first: str) -> list[str]:
        """Servers to ask, at most three: the one that sent the event, then others of the room."""
        others = [
            host
            for host in rooms.hosts(self._parts.db.read, batch.head.room_nid)
            if host != self._parts.our_name
        ]
        return list(dict.fromkeys([first, *others]))[:3]

    async def fill(self, batch: Batch, event: Event, origin: str, received_ts: int) -> None:
        """Place the event and what is missing before it. Writes the batch on the way. Raises Defer."""
        await batch.commit()
        collected = await self._walk_back(batch, event, origin)
        for found in by_prev_events(collected.values()):
            if is_settled(batch.graph, found.event_id) or is_placed(batch, found.event_id):
                continue
            source = Source.TRANSACTION if found is event else Source.MISSING_EVENTS
            missing = missing_prevs(batch, found)
            gap_states = {}
            for prev_id in missing:
                gap_states[prev_id] = await self._state_after(batch, prev_id, origin, received_ts)
            await self.place(batch, found, origin, received_ts, source, gap_states)

    async def place(
        self,
        batch: Batch,
        event: Event,
        origin: str,
        received_ts: int,
        source: Source,
        gap_states: dict[str, StateRef] | None = None,
    ) -> None:
        """`place_live`, fetching the auth events that are missing. Raises Defer."""
        try:
            place_live(batch, event, received_ts, source, gap_states)
        except MissingAuthEvents as missing:
            await batch.commit()
            await self.fetch_auth_events(batch, event, missing.args[0], origin, received_ts)
            try:
                place_live(batch, event, received_ts, source, gap_states)
            except MissingAuthEvents as still:
                raise Defer(f"auth events {still.args[0]}") from still

    async def _walk_back(self, batch: Batch, event: Event, origin: str) -> dict[str, Event]:
        """The event and those found between it and what we know."""
        collected = {event.event_id: event}
        asked: set[str] = set()
        for _ in range(MAX_ROUNDS):
            latest = [
                found.event_id
                for found in collected.values()
                if found.event_id not in asked
                and any(prev_id not in collected for prev_id in missing_prevs(batch, found))
            ][:20]
            if not latest:
                break
            asked.update(latest)
            new = await self._ask_missing(batch, latest, origin)
            collected.update({found.event_id: found for found in new if found.event_id not in collected})
        return collected

    async def _ask_missing(self, batch: Batch, latest: Sequence[str], origin: str) -> list[Event]:
        head = batch.head
        for host in self.residents(batch, origin):
            try:
                pdus = await self._parts.federation.get_missing_events(
                    host, head.room_id, earliest=list(head.tips)[:20], latest=latest, limit=20
                )
            except FederationError as error:
                log.info("could not ask for missing events", room=head.room_id, host=host, error=str(error))
                continue
            found = await self._admit(batch, pdus[:100])
            if found:
                return found
        return []

    async def _admit(self, batch: Batch, pdus: Sequence[object]) -> list[Event]:
        results = await admit(
            pdus, batch.head.version, batch.head.room_id, keys=self._parts.keys, runtime=self._parts.runtime
        )
        return [result for result in results if isinstance(result, Event)]

    # -- the state at a gap ------------------------------------------------------------------------

    async def _state_after(self, batch: Batch, prev_id: str, origin: str, received_ts: int) -> StateRef:
        """The state after an event that we lack. Raises Defer."""
        for host in self.residents(batch, origin):
            try:
                return await self._state_after_from(batch, prev_id, host, received_ts)
            except FederationError as error:
                log.info(
                    "could not get the state at a gap", room=batch.head.room_id, host=host, error=str(error)
                )
        raise Defer(f"the state at {prev_id}")

    async def state_before(self, batch: Batch, event: Event, host: str, received_ts: int) -> StateRef:
        """The state before an event, as another server says. Raises Defer."""
        await batch.commit()
        try:
            return self._relative_to_current(
                batch, await self._fetch_state(batch, event.event_id, host, received_ts)
            )
        except FederationError as error:
            raise Defer(f"the state before {event.event_id}: {error}") from error

    async def _fetch_state(self, batch: Batch, event_id: str, host: str, received_ts: int) -> dict[Key, str]:
        """The state before an event, all of it stored here. Raises FederationError, Defer."""
        room_id, federation = batch.head.room_id, self._parts.federation
        state_ids, auth_ids = await federation.get_state_ids(host, room_id, event_id)
        if len(state_ids) + len(auth_ids) > MAX_STATE_EVENTS:
            raise Defer(f"the state at {event_id}: it is too large")
        wanted = [wanted_id for wanted_id in (*auth_ids, *state_ids) if not batch.graph.has(wanted_id)]
        pdus: list[object] = []
        if len(wanted) > MAX_SINGLE_FETCHES:
            state, chain = await federation.get_state(host, room_id, event_id)
            pdus = [*chain, *state]
        else:
            for wanted_id in wanted:
                pdus.append(await federation.get_event(host, wanted_id))
        await self._keep_outliers(batch, pdus, received_ts)
        return self._as_state(batch, state_ids)

    async def _state_after_from(self, batch: Batch, prev_id: str, host: str, received_ts: int) -> StateRef:
        state_map = await self._fetch_state(batch, prev_id, host, received_ts)
        if not batch.graph.has(prev_id):
            event = await self._parts.federation.get_event(host, prev_id)
            await self._keep_outliers(batch, [event], received_ts)
        previous = batch.graph.event(prev_id)
        if previous is not None and previous.state_key is not None and not batch.graph.is_rejected(prev_id):
            state_map[previous.type, previous.state_key] = prev_id
        return self._relative_to_current(batch, state_map)

    def _as_state(self, batch: Batch, state_ids: Sequence[str]) -> dict[Key, str]:
        """Of the ids that a server names as state, those that are state events of this room and not
        rejected.
        """
        state: dict[Key, str] = {}
        lacking = 0
        for event_id in state_ids:
            event = batch.graph.event(event_id)
            if event is None:
                lacking += 1
            elif (
                event.room_id == batch.head.room_id
                and event.state_key is not None
                and not batch.graph.is_rejected(event_id)
            ):
                state[event.type, event.state_key] = event_id
        create = batch.head.create_event(batch.graph)
        if lacking or create is None or state.get(("m.room.create", "")) != create.event_id:
            raise Defer(f"{lacking} events of the state at a gap")
        return state

    def _relative_to_current(self, batch: Batch, state: dict[Key, str]) -> StateRef:
        current = batch.graph.full(batch.head.current)
        changes: dict[Key, str | None] = {
            key: event_id for key, event_id in state.items() if current.get(key) != event_id
        }
        changes.update({key: None for key in current if key not in state})
        return batch.head.current.with_changes(changes)

    # -- auth events -------------------------------------------------------------------------------

    async def fetch_auth_events(
        self, batch: Batch, event: Event, missing: Collection[str], origin: str, received_ts: int
    ) -> None:
        """Ask for the auth chain of an event and keep it. Finding nothing is no error here."""
        for host in self.residents(batch, origin):
            try:
                chain = await self._parts.federation.get_event_auth(host, batch.head.room_id, event.event_id)
            except FederationError:
                chain = await self._fetch_each(host, missing)
            await self._keep_outliers(batch, chain, received_ts)
            if all(batch.graph.has(event_id) for event_id in missing):
                return

    async def _fetch_each(self, host: str, event_ids: Iterable[str]) -> list[object]:
        found: list[object] = []
        for event_id in list(event_ids)[:10]:
            try:
                found.append(await self._parts.federation.get_event(host, event_id))
            except FederationError as error:
                log.debug("could not get an auth event", host=host, event=event_id, error=str(error))
        return found

    async def _keep_outliers(self, batch: Batch, pdus: Sequence[object], received_ts: int) -> None:
        """Check PDUs by their auth events and store them without a place; those that lack auth events are
        left.
        """
        events = [event for event in await self._admit(batch, pdus) if not batch.graph.has(event.event_id)]
        create = batch.head.create_event(batch.graph)
        for event in by_auth_events(events):
            try:
                add_outlier(batch, event, received_ts, create)
            except MissingAuthEvents as missing:
                log.info(
                    "left an event out: its auth events are missing",
                    event=event.event_id,
                    missing=missing.args[0],
                )
        await batch.commit()
