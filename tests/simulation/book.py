# SPDX-License-Identifier: Apache-2.0
"""A room by the book: what each server thinks of each event, against a plain second writing of the rules.

The rules are tests/matrix/oracle.py (state resolution, whole rooms) and oracle_auth.py (authorisation), slow
and straightforward. With minihs they share how an event is read (`Event`, with the number of its room's
version) and canonical JSON, under the signature of a third-party invite; nothing of minihs.rooms,
minihs.matrix.auth_rules or minihs.matrix.state_resolution. Format, hashes and signatures of events are not
judged here. What the servers hold is read from their databases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from minihs.matrix.event import Event
from minihs.store.events import Outcome, StoredEvent
from tests.matrix import oracle
from tests.matrix.oracle_auth import State, allowed, domain, level_of, membership, scalar
from tests.simulation.inspection import Holding, StateIds


class Book:
    """All that any of the servers holds of a room, judged."""

    def __init__(self, holdings: Sequence[Holding]) -> None:
        (self._version,) = {holding.version for holding in holdings}
        self._held = {holding.name: holding.events() for holding in holdings}
        found: dict[str, Event] = {}
        for held in self._held.values():
            for event_id, stored in held.items():
                found[event_id] = oracle.longest(stored.event, found.get(event_id))
        self._events = oracle.with_all_parents(found)
        self._verdict = oracle.judge_room(self._version, self._events)
        self._states: dict[frozenset[str], StateIds] = {}

    @property
    def rejected(self) -> int:
        """How many events are against the rules."""
        return len(self._verdict.rejected)

    def state_at(self, tips: Collection[str]) -> StateIds:
        """The room's state where these are its forward extremities."""
        key = frozenset(tips)
        if key not in self._states:
            self._states[key] = self._verdict.state_at(self._version, tips, self._events)
        return self._states[key]

    def check_verdicts(self, holding: Holding) -> int:
        """The server has rejected what the rules refuse, nothing else, and knows the state before each event.
        Returns how many events it was asked about."""
        left_behind = holding.left_behind()
        asked = 0
        for event_id, stored in self._held[holding.name].items():
            if stored.outlier or event_id in left_behind or event_id not in self._events:
                continue
            asked += 1
            rejected = stored.outcome is Outcome.REJECTED
            assert rejected == (event_id in self._verdict.rejected), _told(holding, stored)
            if stored.before_group is not None:
                before = holding.state(stored.before_group)
                assert before == self._verdict.before[event_id], f"the state before: {_told(holding, stored)}"
        return asked

    def check_soft_failures(self, holding: Holding) -> int:
        """Events that came live, in the order in which they came: the server has soft-failed those that the
        state refuses which the room had for it at that moment, and no others. Only of a server that was never
        out of the room. Returns how many it has soft-failed."""
        held = self._held[holding.name]
        live = [stored for stored in held.values() if stored.arrival is not None and stored.arrival > 0]
        live.sort(key=lambda stored: stored.arrival or 0)
        tips: set[str] = set()
        parents: set[str] = set()
        came: dict[str, Outcome] = {}
        for stored in live:
            event = self._events[stored.event.event_id]
            if tips:
                now = {key: self._events[event_id] for key, event_id in self.state_at(tips).items()}
                should_be = Outcome.ACCEPTED if allowed(event, now) else Outcome.SOFT_FAILED
                assert stored.outcome is should_be, f"should be {should_be.name}: {_told(holding, stored)}"
            came[event.event_id] = stored.outcome
            if stored.outcome is Outcome.ACCEPTED:
                tips -= self._built_upon(event, came)
                parents.update(event.prev_events)
                if event.event_id not in parents:  # one that comes after its child is no extremity
                    tips.add(event.event_id)
        return sum(stored.outcome is Outcome.SOFT_FAILED for stored in live)

    def check_own(self, holding: Holding) -> None:
        """What the server made is built on events that it had accepted. (A membership may have been made by
        another server, for a user of this one who was not in the room.)"""
        held = self._held[holding.name]
        for stored in held.values():
            event = stored.event
            if domain(event.sender) == holding.name and event.type != "m.room.member" and not stored.outlier:
                parents = [held[prev_id] for prev_id in event.prev_events if prev_id in held]
                assert all(parent.outlier or parent.outcome is Outcome.ACCEPTED for parent in parents), (
                    f"built on what was not accepted: {_told(holding, stored)}"
                )

    def check_redactions(self, holding: Holding) -> int:
        """The server has redacted what somebody asked for who may, and nothing else. Returns how much."""
        held = self._held[holding.name]
        placed = {event_id: stored for event_id, stored in held.items() if not stored.outlier}
        should_be: set[str] = set()
        for stored in placed.values():
            if stored.outcome is not Outcome.ACCEPTED or stored.event.type != "m.room.redaction":
                continue
            target = self._events.get(stored.event.redacts or "")
            if target is not None and self._may_redact(stored.event, target):
                should_be.add(target.event_id)
        redacted = {event_id for event_id, stored in placed.items() if stored.redacted_by is not None}
        assert redacted == should_be.intersection(placed), f"what is redacted on {holding.name}"
        return len(redacted)

    def _may_redact(self, redaction: Event, target: Event) -> bool:
        before = self._before(redaction)
        by_power = level_of(redaction.sender, before) >= scalar("redact", before)
        return by_power or domain(redaction.sender) == domain(target.sender)

    def _before(self, event: Event) -> State:
        before = self._verdict.before[event.event_id]
        return {key: self._events[event_id] for key, event_id in before.items()}

    def moves(self) -> Counter[str]:
        """How often people came, went and were sent, by kind: "knock to leave by another"."""
        found: Counter[str] = Counter()
        for event in self._events.values():
            if event.type == "m.room.member" and event.event_id not in self._verdict.rejected:
                kind = f"{membership(self._before(event), event.state_key)} to {event.content['membership']}"
                kind += " by another" if event.sender != event.state_key else ""
                kind += ", by mail" if "third_party_invite" in event.content else ""
                kind += ", vouched for" if "join_authorised_via_users_server" in event.content else ""
                found[kind] += 1
        return found

    def _built_upon(self, event: Event, came: dict[str, Outcome]) -> set[str]:
        """The accepted events that an event follows, at once or by way of such as were not accepted."""
        found: set[str] = set()
        for prev_id in event.prev_events:
            if came.get(prev_id) is Outcome.ACCEPTED:
                found.add(prev_id)
            elif prev_id in came or prev_id in self._verdict.rejected:
                found |= self._built_upon(self._events[prev_id], came)
        return found


def _told(holding: Holding, stored: StoredEvent) -> str:
    return f"{holding.name} on {stored.event}: {stored.outcome.name} ({stored.reason})"
