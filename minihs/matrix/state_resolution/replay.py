# SPDX-License-Identifier: Apache-2.0
"""States under construction, and the iterative auth checks that build them (spec: rooms/v2,
"Definitions")."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.matrix.event import Event
from minihs.matrix.state_resolution.store import EventStore, Key, StateLookup, create_id_of, need

type Witness = Callable[[Event, str | None], None]
"""Told of each event that is tried, in the order in which they are, and why the rules refuse it (None: they
don't). For explaining a resolution."""


class PartialState:
    """A state made of what was put there so far, over one that is only looked up.

    `hidden` are keys under which the state below counts as empty.
    """

    def __init__(self, store: EventStore, below: StateLookup, hidden: Container[Key]) -> None:
        self.put: dict[Key, str] = {}
        self._store = store
        self._below = below
        self._hidden = hidden
        self._looked_up: dict[Key, str | None] = {}

    def event_id(self, key: Key) -> str | None:
        return self.put.get(key) or self.below(key)

    def below(self, key: Key) -> str | None:
        """What the state below has."""
        if key in self._hidden:
            return None
        if key not in self._looked_up:
            self._looked_up[key] = self._below.get(key)
        return self._looked_up[key]

    def get(self, key: Key, /) -> Event | None:
        event_id = self.event_id(key)
        return need(self._store, event_id) if event_id is not None else None


class _JudgingState:
    """What one event is judged by in the iterative auth checks: the state so far, and where that has nothing,
    the event's own auth events unless they were rejected."""

    def __init__(self, event: Event, state: PartialState, store: EventStore) -> None:
        self._state = state
        self._event = event
        self._store = store
        self._own: dict[Key | None, Event] | None = None

    def get(self, key: Key, /) -> Event | None:
        event = self._state.get(key)
        if event is None:
            if self._own is None:
                self._own = self._own_auth_events()
            event = self._own.get(key)
        return event

    def _own_auth_events(self) -> dict[Key | None, Event]:
        auth_ids = list(self._event.auth_events)
        if self._event.version.room_id_is_create_hash:
            auth_ids.append(create_id_of(self._event.room_id))
        events = [need(self._store, auth_id) for auth_id in auth_ids]
        return {event.key: event for event in events if not self._store.is_rejected(event.event_id)}


def replay(
    events: Iterable[Event], state: PartialState, store: EventStore, witness: Witness | None = None
) -> None:
    """Put each event into the state if the state then allows it, in the order given.

    Events that were once rejected against the state before them are treated like any other.
    """
    for event in events:
        if event.key is None:
            continue
        try:
            check_auth(event, _JudgingState(event, state, store))
        except AuthError as error:
            if witness is not None:
                witness(event, str(error))
            continue
        state.put[event.key] = event.event_id
        if witness is not None:
            witness(event, None)
