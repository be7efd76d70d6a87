# SPDX-License-Identifier: Apache-2.0
"""The state at a point of the DAG that we don't have, as another server of the room tells it.

Its events are checked one by one (`Source.STATE`); that they are the state there is taken on trust, which
the protocol has no way around. Spec: server-server-api, "Retrieving event authorization information".

/event shows redacted what we are not to see, state events as well, which /state gives whole. To go by what is
left of them would be to have another state than all others: of a server ACL that is "deny everybody".
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError, RemoteProtocolError
from minihs.matrix.hashes import id_of_refused, is_unchanged
from minihs.rooms.admission import Source, is_malformed
from minihs.rooms.asking import Asking
from minihs.rooms.batch import Batch
from minihs.rooms.parts import Parts
from minihs.rooms.state import Key, StateRef
from minihs.store import events
from minihs.store.events import Outcome

log = structlog.get_logger()

MAX_STATE_EVENTS = 250_000
"""Events in the answer to state_ids; rooms of today have up to about 200,000."""
MAX_SINGLE_FETCHES = 40
"""Missing state events fetched one by one; more, and the whole state is asked for."""


class Defer(Exception):
    """What the event needs can't be had now: keep it and try again later. `.args[0]` says what is missing."""


class GapState:
    def __init__(self, parts: Parts, asking: Asking) -> None:
        self._parts = parts
        self._asking = asking

    async def after(
        self, batch: Batch, prev_id: str, child_id: str, origin: str, received_ts: int
    ) -> StateRef:
        """The state after an event that we lack, one parent of `child_id`. Raises Defer.

        One whose form is not valid changes nothing, like one that is rejected: a server without our limits
        takes it for an event, and what is built on it there is good.
        """
        _require_whole(batch)
        for host in self._asking.residents(batch, origin):
            try:
                state = await self._before_by(batch, prev_id, host, received_ts)
                previous = await self._event_from(batch, prev_id, child_id, host, received_ts)
            except FederationError as error:
                log.info("could not get the state at a gap", room=batch.head.room_id, error=str(error))
                continue
            key = None if previous is None else previous.key
            if key is not None and not batch.graph.is_rejected(prev_id):
                state[key] = prev_id
            return self._relative_to_current(batch, state)
        raise Defer(f"the state at {prev_id}")

    async def before(self, batch: Batch, event_id: str, hosts: Sequence[str], received_ts: int) -> StateRef:
        """The state before an event. Raises Defer."""
        _require_whole(batch)
        for host in hosts:
            try:
                state = await self._before_by(batch, event_id, host, received_ts)
            except FederationError as error:
                log.info("could not get a state", room=batch.head.room_id, error=str(error))
            else:
                return self._relative_to_current(batch, state)
        raise Defer(f"the state before {event_id}")

    async def _event_from(
        self, batch: Batch, event_id: str, child_id: str, host: str, received_ts: int
    ) -> Event | None:
        """None: its form is not valid."""
        if not batch.graph.has(event_id):
            federation = self._parts.federation
            pdu = await self._asking.ask(batch, lambda: federation.get_event(host, event_id))
            if is_malformed(pdu, batch.head.version, event_id):
                return None
            if _is_cut(pdu):
                shown = await self._whole_state(batch, child_id, host)
                pdu = next((each for each in shown if _is_whole_of(each, event_id, batch)), pdu)
            await self._asking.keep_outliers(batch, [pdu], Source.STATE, received_ts)
        event = batch.graph.event(event_id)
        if event is None or event.room_id != batch.head.room_id:
            raise RemoteProtocolError(host, f"could not give us {event_id}, the state at which it told")
        return event

    async def _before_by(self, batch: Batch, event_id: str, host: str, received_ts: int) -> dict[Key, str]:
        """The state before an event, all of it stored here. Raises FederationError."""
        room_id, federation = batch.head.room_id, self._parts.federation
        state_ids, auth_ids = await self._asking.ask(
            batch, lambda: federation.get_state_ids(host, room_id, event_id)
        )
        if len(state_ids) + len(auth_ids) > MAX_STATE_EVENTS:
            raise RemoteProtocolError(host, "has a state that is too large")
        known = events.known(self._parts.db.read, state_ids) | events.known(self._parts.db.read, auth_ids)
        wanted = list(dict.fromkeys(each for each in (*auth_ids, *state_ids) if each not in known))
        pdus: list[object] = []
        if len(wanted) > MAX_SINGLE_FETCHES:
            pdus = await self._ask_for_state(batch, event_id, host)
        elif wanted:
            pdus = await self._asking.fetch_each(batch, host, wanted)
            if any(map(_is_cut, pdus)):
                version = batch.head.version
                shown = await self._whole_state(batch, event_id, host)
                ids = {id_of_refused(pdu, version) for pdu in shown}
                pdus = shown + [pdu for pdu in pdus if id_of_refused(pdu, version) not in ids]
        refused: set[str] = set()
        if pdus:
            refused = await self._asking.keep_outliers(batch, pdus, Source.STATE, received_ts)
        return await self._as_state(batch, host, state_ids, refused)

    async def _ask_for_state(self, batch: Batch, event_id: str, host: str) -> list[object]:
        """The state before an event and its auth chain. Raises FederationError."""
        room_id, federation = batch.head.room_id, self._parts.federation
        state, chain = await self._asking.ask(batch, lambda: federation.get_state(host, room_id, event_id))
        if len(state) + len(chain) > MAX_STATE_EVENTS:
            raise RemoteProtocolError(host, "has a state that is too large")
        return [*chain, *state]

    async def _whole_state(self, batch: Batch, event_id: str, host: str) -> list[object]:
        """The same for who has something of it; empty if it is not to be had."""
        try:
            return await self._ask_for_state(batch, event_id, host)
        except FederationError as error:
            log.info("could not get a state whole", room=batch.head.room_id, error=str(error))
            return []

    async def _as_state(
        self, batch: Batch, host: str, state_ids: Sequence[str], refused: set[str]
    ) -> dict[Key, str]:
        """Of the ids that a server names as state, those that are state events of this room and not rejected.

        Those that it could show us but that fail the checks (a signature by a key that nobody has any more)
        are left out, as in a join. Without those that it could not show, the state is not known.
        """
        state: dict[Key, str] = {}
        lacking: list[str] = []
        for start in range(0, len(state_ids), 500):
            part = state_ids[start : start + 500]
            found = batch.graph.stored_many(part)
            for event_id in part:
                item = found.get(event_id)
                if item is None:
                    if event_id not in refused:
                        lacking.append(event_id)
                elif item.room_nid == batch.head.room_nid and item.outcome is not Outcome.REJECTED:
                    key = item.event.key
                    if key is not None:
                        state[key] = event_id
        if lacking:
            raise RemoteProtocolError(
                host, f"could not give us {len(lacking)} events of a state, as {lacking[0]}"
            )
        create = batch.head.create_event(batch.graph)
        if create is None or state.get(("m.room.create", "")) != create.event_id:
            raise RemoteProtocolError(host, "told a state without the room's create event")
        return state

    def _relative_to_current(self, batch: Batch, state: dict[Key, str]) -> StateRef:
        current = batch.graph.full(batch.head.current)
        changes: dict[Key, str | None] = {
            key: event_id for key, event_id in state.items() if current.get(key) != event_id
        }
        changes.update({key: None for key in current if key not in state})
        return batch.head.current.with_changes(changes)


def _require_whole(batch: Batch) -> None:
    """Where members are missing, all of them would have to be fetched again for each gap. They are on their
    way: wait for them."""
    if batch.head.partial is not None:
        raise Defer("the members of the room")


def _is_cut(pdu: object) -> bool:
    """Is this a state event in its redacted form? (Of a membership enough is left, and in large rooms many
    were redacted by those who may.)"""
    return (
        isinstance(pdu, dict)
        and "state_key" in pdu
        and pdu.get("type") != "m.room.member"
        and not is_unchanged(pdu)
    )


def _is_whole_of(pdu: object, event_id: str, batch: Batch) -> bool:
    return id_of_refused(pdu, batch.head.version) == event_id and is_unchanged(pdu)
