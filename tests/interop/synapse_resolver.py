# SPDX-License-Identifier: Apache-2.0
"""Synapse's state resolution as a filter. Runs in Synapse's environment.

Each line of its input is a JSON object: `version`, `room_id`, `events` (id → PDU) and `states`, lists of
[type, state key, event id]. Each line of its output is the resolved state in that form, sorted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

import synapse.event_auth  # first, or its imports go round in a circle
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import EventBase, make_event_from_dict
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference
from twisted.internet import defer

type State = dict[tuple[str, str], str]

assert synapse.event_auth is not None


class Clock:
    def sleep(self, duration: object) -> defer.Deferred[None]:
        return defer.succeed(None)


class Store:
    """In the place of its database, which counts what a state holds as reached by it."""

    def __init__(self, events: dict[str, EventBase]) -> None:
        self._events = events

    async def get_events(self, ids: Iterable[str], allow_rejected: bool = False) -> dict[str, EventBase]:
        return {each: self._events[each] for each in ids if each in self._events}

    async def get_auth_chain_difference(
        self, room_id: str, states: list[set[str]], conflicted: set[str] | None, more: object
    ) -> StateDifference:
        reached = [self._reached(state) for state in states]
        difference = set.union(*reached) - set.intersection(*reached)
        between = None
        if conflicted is not None:
            between = {each for each in self._reached(conflicted) if self._reached([each]) & conflicted}
        return StateDifference(auth_difference=difference, conflicted_subgraph=between)

    def _reached(self, ids: Collection[str]) -> set[str]:
        reached: set[str] = set()
        waiting = list(ids)
        while waiting:
            event_id = waiting.pop()
            if event_id not in reached:
                reached.add(event_id)
                waiting += self._events[event_id].auth_event_ids()
        return reached


def result_of(call: Callable[[], Any]) -> Any:
    """What a coroutine of Synapse's returns that waits for nothing."""
    results: list[Any] = []
    failures: list[Any] = []
    defer.ensureDeferred(call()).addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    return results[0]


def resolve(room: dict[str, Any]) -> State:
    version = KNOWN_ROOM_VERSIONS[room["version"]]
    events = {each: make_event_from_dict(pdu, version) for each, pdu in room["events"].items()}
    assert all(event.event_id == each for each, event in events.items())
    states = [{(type_, key): event_id for type_, key, event_id in state} for state in room["states"]]
    store = Store(events)
    if room["version"] == "1":
        found = result_of(
            lambda: v1.resolve_events_with_store(room["room_id"], version, states, None, store.get_events)
        )
    else:
        found = result_of(
            lambda: v2.resolve_events_with_store(Clock(), room["room_id"], version, states, None, store)
        )
    return dict(found)


for line in sys.stdin:
    resolved = resolve(json.loads(line))
    sys.stdout.write(json.dumps(sorted([*key, event_id] for key, event_id in resolved.items())) + "\n")
