# SPDX-License-Identifier: Apache-2.0
"""What state resolution is given: events by id, and states that it asks for single keys."""

from __future__ import annotations

from typing import Protocol

from minihs.matrix.event import Event

type Key = tuple[str, str]
"""The `(type, state_key)` of a state event."""


class EventStore(Protocol):
    """Where events come from. Asked for the same event many times: an answer should be cheap."""

    def get(self, event_id: str, /) -> Event | None: ...

    def is_rejected(self, event_id: str, /) -> bool:
        """Whether the event failed the auth rules, against its auth events or the state before it."""
        ...


class StateLookup(Protocol):
    """A state of which only single keys are wanted. A dict will do, and so will a query."""

    def get(self, key: Key, /) -> str | None: ...


class MissingEventError(LookupError):
    """Resolution needs an event that the store doesn't have; `args[0]` is its id.

    To go on without it could reset the room's state. The caller gets the event (from other servers, if need
    be) and resolves again, or puts off what it wanted the state for.
    """


def need(store: EventStore, event_id: str) -> Event:
    """The event. MissingEventError if there is none."""
    event = store.get(event_id)
    if event is None:
        raise MissingEventError(event_id)
    return event


def create_id_of(room_id: str) -> str:
    """The id of the create event that a room id is made of (rooms/v12)."""
    return "$" + room_id[1:]
