# SPDX-License-Identifier: Apache-2.0
"""The past of a room, as the synthetic peer tells it: the state at an event, and the events before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minihs.matrix import canonical
from minihs.matrix.event import Event

type JsonObject = dict[str, Any]
type Key = tuple[str, str]
type State = Mapping[Key, Event]


class Past:
    """Answers from `events`. `state_before` gives the state before any event, also one that only the asker
    has. The answers for it are kept: it must go on saying the same."""

    def __init__(self, events: Mapping[str, Event], state_before: Callable[[str], State]) -> None:
        self.events = events
        self._state_before = state_before
        self._states: dict[str, bytes] = {}

    def state(self, event_id: str) -> bytes:
        if event_id not in self._states:
            state = self._state_before(event_id).values()
            self._states[event_id] = b'{"auth_chain":%b,"pdus":%b}' % (
                pdus(auth_chain(state, self.events)),
                pdus(state),
            )
        return self._states[event_id]

    def state_ids(self, event_id: str) -> JsonObject:
        state = self._state_before(event_id).values()
        return {
            "auth_chain_ids": [event.event_id for event in auth_chain(state, self.events)],
            "pdu_ids": [event.event_id for event in state],
        }

    def auth_of(self, event_id: str) -> JsonObject:
        chain = auth_chain([self.events[event_id]], self.events)
        return {"auth_chain": [event.json for event in chain]}

    def before(self, event_ids: Iterable[str], limit: int) -> list[JsonObject]:
        """Those events and what they follow, the newest first."""
        found: dict[str, Event] = {}
        edge = [event_id for event_id in event_ids if event_id in self.events]
        while edge and len(found) < limit:
            found |= {event_id: self.events[event_id] for event_id in edge[: limit - len(found)]}
            parents = [prev for event_id in edge for prev in self.events[event_id].prev_events]
            edge = [prev for prev in dict.fromkeys(parents) if prev in self.events and prev not in found]
        return [event.json for event in found.values()]


def auth_chain(state: Iterable[Event], events: Mapping[str, Event]) -> list[Event]:
    seen: dict[str, Event] = {}
    todo = [event_id for event in state for event_id in event.auth_events]
    while todo:
        event_id = todo.pop()
        if event_id not in seen:
            seen[event_id] = events[event_id]
            todo += seen[event_id].auth_events
    return list(seen.values())


def pdus(events: Iterable[Event]) -> bytes:
    return canonical.dumps([event.json for event in events])
