# SPDX-License-Identifier: Apache-2.0
"""The checks of a PDU whose parents are known: spec, "Checks performed on receipt of a PDU", 4–7.

    4. allowed by its auth events, else rejected;
    5. allowed by the state before it, else rejected;
    6. allowed by the current state of the room, else soft-failed;
    7. recommended by the room's policy server, if it has one, else soft-failed.

(1–3, format, signature and hash, are `admission`'s.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from minihs.matrix.auth_rules import AuthError, check_auth, check_auth_events
from minihs.matrix.event import Event
from minihs.rooms.admission import Source
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head
from minihs.rooms.policy import is_recommended, policy_server_of
from minihs.rooms.state import Key, StateRef
from minihs.store.events import Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    reason: str | None = None


ACCEPTED = Verdict(Outcome.ACCEPTED)


class EventSource(Protocol):
    """Where auth events are found: the room's graph, or the answer to a send_join."""

    def event(self, event_id: str) -> Event | None: ...

    def is_rejected(self, event_id: str) -> bool: ...


class MissingAuthEvents(Exception):
    """Some of an event's auth events are not here: fetch them, or defer the event. `.args[0]`: their ids."""


def auth_events_of(graph: EventSource, event: Event) -> list[Event]:
    """Raises MissingAuthEvents."""
    found: list[Event] = []
    missing: list[str] = []
    for event_id in event.auth_events:
        auth_event = graph.event(event_id)
        if auth_event is None:
            missing.append(event_id)
        else:
            found.append(auth_event)
    if missing:
        raise MissingAuthEvents(missing)
    return found


def check_by_auth_events(graph: EventSource, event: Event, create: Event | None) -> Verdict:
    """Step 4. Raises MissingAuthEvents."""
    auth_events = auth_events_of(graph, event)
    rejected = {auth_event.event_id for auth_event in auth_events if graph.is_rejected(auth_event.event_id)}
    try:
        check_auth_events(event, auth_events, rejected, create)
        state: dict[Key, Event] = {}
        for auth_event in auth_events:
            if auth_event.state_key is not None:
                state[auth_event.type, auth_event.state_key] = auth_event
        if create is not None and event.version.room_id_is_create_hash:
            state["m.room.create", ""] = create
        check_auth(event, state)
    except AuthError as error:
        return Verdict(Outcome.REJECTED, f"by its auth events: {error}")
    return ACCEPTED


def judge(graph: Graph, head: Head, event: Event, before: StateRef, source: Source) -> Verdict:
    """Steps 4–7, those that `source` asks for. Raises MissingAuthEvents."""
    if event.type == "m.room.create" and head.tips:
        # Rule 1 would allow it: by itself, with nothing before it. Resolved with what the room has it could
        # reset all of its state. A room has one create event, the one that we know.
        known = head.create_event(graph)
        if known is None or event.event_id != known.event_id:
            return Verdict(Outcome.REJECTED, "the room has another create event")
    if "auth_events" in source.checks:
        verdict = check_by_auth_events(graph, event, head.create_event(graph))
        if verdict.outcome is not Outcome.ACCEPTED:
            return verdict
    if "before" in source.checks:
        try:
            check_auth(event, head.state(graph, before))
        except AuthError as error:
            return Verdict(Outcome.REJECTED, f"by the state before it: {error}")
    if "current" in source.checks and not before.same_as(head.current):
        try:
            check_auth(event, head.state(graph))
        except AuthError as error:
            return Verdict(Outcome.SOFT_FAILED, f"by the current state: {error}")
    if "policy" in source.checks and not is_recommended(policy_server_of(graph, head), event):
        return Verdict(Outcome.SOFT_FAILED, "the room's policy server has not signed it")
    return ACCEPTED
