# SPDX-License-Identifier: Apache-2.0
"""Asking the other servers of a room, and keeping what they give that has no place in the timeline.

A room does not stand still while its job waits for an answer (`RoomTasks.aside`): before the question the
batch is written, after it the head is read anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial

import structlog

from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.hashes import id_of_refused
from minihs.rooms.admission import Source, admit
from minihs.rooms.authorise import MissingAuthEvents
from minihs.rooms.batch import Batch
from minihs.rooms.head import reload
from minihs.rooms.ordering import by_auth_events
from minihs.rooms.parts import Parts
from minihs.rooms.placement import add_outlier
from minihs.store import events, rooms

log = structlog.get_logger()

MAX_RESIDENTS = 3
"""Servers asked for the same thing, one after another."""
MAX_AUTH_FETCHES = 10
"""Auth events fetched one by one from a server that does not know the auth chain."""


class Asking:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def residents(self, batch: Batch, first: str | None = None) -> list[str]:
        """Servers to ask: the one that sent the event, then others of the room."""
        hosts = [] if first is None else [first]
        hosts += rooms.hosts(self._parts.db.read, batch.head.room_nid)
        return [host for host in dict.fromkeys(hosts) if host != self._parts.our_name][:MAX_RESIDENTS]

    async def ask[T](self, batch: Batch, call: Callable[[], Awaitable[T]]) -> T:
        """`call()` another server. Raises FederationError, and NotInRoom if we left meanwhile."""
        await batch.commit()
        self._parts.turns.set_aside(batch.head.room_id)
        try:
            return await self._parts.tasks.aside(batch.head.room_id, call)
        finally:
            reload(self._parts.db.read, self._parts.graph, batch.head)

    async def admit(
        self, batch: Batch, pdus: Sequence[object], source: Source
    ) -> tuple[list[Event], set[str]]:
        """Those that pass the checks that need no state, and the ids of the others as far as they have one.

        Fetching keys is asking other servers, too.
        """
        head, parts = batch.head, self._parts
        results = await self.ask(
            batch,
            lambda: admit(pdus, head.version, head.room_id, source, keys=parts.keys, runtime=parts.runtime),
        )
        refused: set[str] = set()
        for pdu, result in zip(pdus, results, strict=True):
            if not isinstance(result, Event):
                log.info("refused an event", room=head.room_id, source=source.name, reason=result.text)
                event_id = id_of_refused(pdu, head.version)
                if event_id is not None:
                    refused.add(event_id)
        return [result for result in results if isinstance(result, Event)], refused

    async def keep_outliers(
        self, batch: Batch, pdus: Sequence[object], source: Source, received_ts: int
    ) -> set[str]:
        """Check PDUs by their auth events and store them without a place. Those that lack auth events are
        left for another time; those that fail the checks before (their ids are returned), for good.
        """
        admitted, refused = await self.admit(batch, pdus, source)
        known = events.known(self._parts.db.read, [event.event_id for event in admitted])
        create = batch.head.create_event(batch.graph)
        for event in by_auth_events(event for event in admitted if event.event_id not in known):
            try:
                add_outlier(batch, event, received_ts, create, source)
            except MissingAuthEvents as missing:
                log.info(
                    "left an event out: its auth events are missing",
                    event_id=event.event_id,
                    missing=missing.args[0],
                )
            except Exception as error:  # the boundary of one PDU: the others are needed all the same
                log.error("an event made its check fail", event_id=event.event_id, exc_info=error)
        await batch.commit()
        return refused

    async def fetch_auth_events(
        self, batch: Batch, event: Event, missing: Collection[str], origin: str, received_ts: int
    ) -> None:
        """Ask for the auth chain of an event and keep it. Finding nothing is no error here."""
        federation, room_id = self._parts.federation, batch.head.room_id
        for host in self.residents(batch, origin):
            try:
                chain = await self.ask(
                    batch, partial(federation.get_event_auth, host, room_id, event.event_id)
                )
            except FederationError:
                for event_id in list(missing)[:MAX_AUTH_FETCHES]:
                    await self._fetch_with_chain(batch, host, event_id, received_ts)
            else:
                await self.keep_outliers(batch, chain, Source.AUTH_CHAIN, received_ts)
            if all(batch.graph.has(event_id) for event_id in missing):
                return

    async def _fetch_with_chain(self, batch: Batch, host: str, event_id: str, received_ts: int) -> None:
        """A single event, and what it rests on if that is not here either."""
        pdus = await self.fetch_each(batch, host, [event_id])
        await self.keep_outliers(batch, pdus, Source.AUTH_CHAIN, received_ts)
        if not pdus or batch.graph.has(event_id):
            return
        ask_chain = partial(self._parts.federation.get_event_auth, host, batch.head.room_id, event_id)
        try:
            pdus += await self.ask(batch, ask_chain)
        except FederationError as error:
            log.info("could not get an auth chain", host=host, event_id=event_id, error=str(error))
        else:
            await self.keep_outliers(batch, pdus, Source.AUTH_CHAIN, received_ts)

    async def fetch_each(self, batch: Batch, host: str, event_ids: Iterable[str]) -> list[object]:
        """Single events, those that are to be had."""
        federation = self._parts.federation
        found: list[object] = []
        for event_id in event_ids:
            try:
                found.append(await self.ask(batch, partial(federation.get_event, host, event_id)))
            except FederationError as error:
                log.info("could not get an event", host=host, event_id=event_id, error=str(error))
        return found
