# SPDX-License-Identifier: Apache-2.0
"""The checks of a PDU whose parents are known: spec, "Checks performed on receipt of a PDU", 4–7.

    4. allowed by its auth events, else rejected;
    5. allowed by the state before it, else rejected;
    6. allowed by the current state of the room, else soft-failed;
    7. recommended by the room's policy server, if it has one, else soft-failed.

(1–3, format, signature and hash, are `admission`'s.)

In a room whose members are not all known yet (rooms/partial_join.py), 5 takes a membership that is missing
from the state from the event's auth events; what fails all the same is not rejected, for it may be we who are
wrong: it waits (`Unsure`). 6 waits too. Both are done again once the members are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from minihs.matrix.auth_rules import AuthError, check_auth, check_auth_events
from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event
from minihs.rooms.admission import Source
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head
from minihs.rooms.policy import is_recommended, policy_server_of
from minihs.rooms.state import Key, Like, StateMap, StateRef
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


class Unsure(MatrixError):
    """Not allowed by the part of the state that we know; whether by all of it, nobody can tell yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(403, "M_FORBIDDEN", f"Not allowed by what is known of the room: {reason}")


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
    """Steps 4–7, those that `source` asks for. Raises MissingAuthEvents, and Unsure."""
    if event.type == "m.room.create" and head.tips:
        # Rule 1 would allow it: by itself, with nothing before it. Resolved with what the room has it could
        # reset all of its state. A room has one create event, the one that we know.
        known = head.create_event(graph)
        if known is None or event.event_id != known.event_id:
            return Verdict(Outcome.REJECTED, "the room has another create event")
    checks = source.checks
    like = alike(event) if head.partial is None and "before" in checks else None
    # (An auth event that came alone, and was accepted so, may have been rejected at its place since.)
    if like is None or like not in before.allowed or any(map(graph.is_rejected, event.auth_events)):
        verdict = _judge_by_place(graph, head, event, before, source)
        if verdict.outcome is not Outcome.ACCEPTED:
            return verdict
        if like is not None:
            before.allow(like)
    if "current" in checks and head.partial is None and not before.same_as(head.current):
        try:
            check_auth(event, head.state(graph))
        except AuthError as error:
            return Verdict(Outcome.SOFT_FAILED, f"by the current state: {error}")
    if "policy" in checks and not is_recommended(policy_server_of(graph, head), event):
        return Verdict(Outcome.SOFT_FAILED, "the room's policy server has not signed it")
    return ACCEPTED


def _judge_by_place(graph: Graph, head: Head, event: Event, before: StateRef, source: Source) -> Verdict:
    """Steps 4 and 5."""
    if "auth_events" in source.checks:
        verdict = check_by_auth_events(graph, event, head.create_event(graph))
        if verdict.outcome is not Outcome.ACCEPTED:
            return verdict
    if "before" in source.checks:
        try:
            check_auth(event, _state_before(graph, head, event, before))
        except AuthError as error:
            if head.partial is not None:
                raise Unsure(str(error)) from error
            return Verdict(Outcome.REJECTED, f"by the state before it: {error}")
    return ACCEPTED


_LOOKED_INTO = frozenset(
    (
        "m.room.create",
        "m.room.member",
        "m.room.aliases",
        "m.room.third_party_invite",
        "m.room.power_levels",
        "m.room.redaction",
    )
)
"""Types for which the rules look at more than type, sender and auth events."""


def alike(event: Event) -> Like | None:
    """Where one event is allowed, all others that have this in common are as well. None: only itself."""
    if event.state_key is not None or event.type in _LOOKED_INTO:
        return None
    return event.type, event.sender, event.auth_events


def _state_before(graph: Graph, head: Head, event: Event, before: StateRef) -> StateMap:
    """The state before an event; what members it lacks because we don't know them yet, as the event cites
    them. (They have passed step 4, so they are allowed by themselves.)"""
    if head.partial is None:
        return head.state(graph, before)
    return StateMap(graph, before, cited_members(graph, event, lambda key: graph.lookup(before, key) is None))


def cited_members(source: EventSource, event: Event, is_missing: Callable[[Key], bool]) -> dict[Key, Event]:
    """The memberships among an event's auth events, those that the state lacks."""
    found: dict[Key, Event] = {}
    for auth_event in auth_events_of(source, event):
        key = auth_event.key
        if key is not None and key[0] == "m.room.member" and is_missing(key):
            found[key] = auth_event
    return found
