# SPDX-License-Identifier: Apache-2.0
"""State resolution once more, written down plainly from the texts: slow, simple, and sharing no code with
minihs.matrix.state_resolution (nor, through oracle_auth, with minihs.matrix.auth_rules).

For tests and simulations: `judge_room` tells of a whole room which events are rejected and what the state is
after each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1

from minihs.matrix.event import Event
from minihs.matrix.room_versions import RoomVersion
from tests.matrix.oracle_auth import allowed, auth_events_right, level_of, wanted_keys

type Key = tuple[str, str]
type State = dict[Key, str]

LEVELS = ("m.room.power_levels", "")


def resolve(
    version: RoomVersion,
    state_sets: Sequence[Mapping[Key, str]],
    events: Mapping[str, Event],
    rejected: Collection[str] = (),
) -> State:
    if version.version == "1":
        return resolve_v1(state_sets, events)
    return resolve_v2(state_sets, events, rejected, newer=int(version.version) >= 12)


def auth_chain(event_ids: Collection[str], events: Mapping[str, Event]) -> set[str]:
    chain: set[str] = set()
    while True:
        cited = {auth for event_id in chain.union(event_ids) for auth in events[event_id].auth_events}
        if cited <= chain:
            return chain
        chain |= cited


def is_power_event(event: Event) -> bool:
    if event.type in ("m.room.power_levels", "m.room.join_rules", "m.room.create"):
        return event.state_key == ""
    if event.type == "m.room.member":
        return event.content.get("membership") in ("leave", "ban") and event.sender != event.state_key
    return False


def resolve_v2(
    state_sets: Sequence[Mapping[Key, str]],
    events: Mapping[str, Event],
    rejected: Collection[str],
    newer: bool,
) -> State:
    keys = {key for state in state_sets for key in state}
    unconflicted: State = {}
    conflicted: set[str] = set()
    for key in keys:
        values = {state.get(key) for state in state_sets}
        if len(values) == 1:
            unconflicted[key] = state_sets[0][key]
        else:
            conflicted |= {value for value in values if value is not None}
    if not conflicted:
        return unconflicted

    # What a state holds counts as reached by it, as it does for the servers in the field.
    chains = [auth_chain(state.values(), events).union(state.values()) for state in state_sets]
    in_all = {event_id for event_id in chains[0] if all(event_id in chain for chain in chains)}
    full = conflicted | (set.union(*chains) - in_all)
    if newer:
        chain_of = {event_id: auth_chain([event_id], events) for event_id in auth_chain(conflicted, events)}
        below = auth_chain(conflicted, events)
        full |= {event_id for event_id in below if chain_of[event_id] & conflicted}

    # 1: power events, and what of their auth chains can be reached inside the full conflicted set
    picked = {event_id for event_id in full if is_power_event(events[event_id])}
    while True:
        more = {auth for event_id in picked for auth in events[event_id].auth_events if auth in full}
        if more <= picked:
            break
        picked |= more
    ordered: list[str] = []
    left = set(picked)
    while left:
        free = [event_id for event_id in left if not left.intersection(events[event_id].auth_events)]
        first = min(free, key=lambda event_id: power_rank(events[event_id], events))
        ordered.append(first)
        left.remove(first)

    # 2
    state: State = {} if newer else dict(unconflicted)
    iterate(ordered, state, events, rejected)

    # 3 and 4
    mainline: list[str] = []
    current = state.get(LEVELS)
    while current is not None:
        mainline.append(current)
        current = levels_of(current, events)

    def mainline_rank(event_id: str) -> tuple[float, int, str]:
        position = math.inf
        levels = levels_of(event_id, events)
        while levels is not None:
            if levels in mainline:
                position = mainline.index(levels)
                break
            levels = levels_of(levels, events)
        return (-position, events[event_id].origin_server_ts, event_id)

    iterate(sorted(full - picked, key=mainline_rank), state, events, rejected)

    # 5
    return {**state, **unconflicted}


def levels_of(event_id: str, events: Mapping[str, Event]) -> str | None:
    for auth in events[event_id].auth_events:
        if events[auth].key == LEVELS:
            return auth
    return None


def auth_state(event: Event, events: Mapping[str, Event], rejected: Collection[str]) -> dict[Key, Event]:
    """The state that an event's own auth events make."""
    ids = list(event.auth_events)
    if int(event.version.version) >= 12 and event.type != "m.room.create":
        ids.append("$" + event.room_id[1:])
    found = [events[auth] for auth in ids if auth not in rejected]
    return {auth.key: auth for auth in found if auth.key is not None}


def power_rank(event: Event, events: Mapping[str, Event]) -> tuple[float, int, str]:
    power = level_of(event.sender, auth_state(event, events, ()))
    return (-power, event.origin_server_ts, event.event_id)


def iterate(
    ordered: Sequence[str], state: State, events: Mapping[str, Event], rejected: Collection[str]
) -> None:
    for event_id in ordered:
        event = events[event_id]
        judging = auth_state(event, events, rejected)
        for key in wanted_keys(event) | {("m.room.create", "")}:
            if key in state:
                judging[key] = events[state[key]]
        if event.key is not None and allowed(event, judging):
            state[event.key] = event_id


# ---- version 1 ----


def resolve_v1(state_sets: Sequence[Mapping[Key, str]], events: Mapping[str, Event]) -> State:
    candidates: dict[Key, set[str]] = {}
    for state in state_sets:
        for key, event_id in state.items():
            candidates.setdefault(key, set()).add(event_id)
    result = {key: min(ids) for key, ids in candidates.items() if len(ids) == 1}
    disputed = {key: ids for key, ids in candidates.items() if len(ids) > 1}

    def ascending(ids: Collection[str]) -> list[str]:
        by_hash = sorted(
            ids, key=lambda event_id: sha1(event_id.encode(), usedforsecurity=False).hexdigest(), reverse=True
        )
        return sorted(by_hash, key=lambda event_id: events[event_id].json["depth"])

    def passes(event_id: str, state: State) -> bool:
        return allowed(events[event_id], {key: events[found] for key, found in state.items()})

    for type in ("m.room.power_levels", "m.room.join_rules", "m.room.member"):
        settled: State = {}
        for key in [key for key in disputed if key[0] == type]:
            trying = dict(result)
            first, *others = ascending(disputed.pop(key))
            trying[key] = first
            for event_id in others:
                if not passes(event_id, trying):
                    break
                trying[key] = event_id
            settled[key] = trying[key]
        result |= settled
    rest: State = {}
    for key, ids in disputed.items():
        descending = ascending(ids)[::-1]
        good = [event_id for event_id in descending if passes(event_id, result)]
        rest[key] = good[0] if good else descending[-1]
    return result | rest


# ---- whole rooms ----


def longest(one: Event, other: Event | None) -> Event:
    """Of two forms of an event the whole one, if either is: the other is redacted."""
    return one if other is None or len(str(one.json)) > len(str(other.json)) else other


def with_all_parents(events: dict[str, Event]) -> dict[str, Event]:
    """Without events (such as a leave that only its own server ever saw) whose parents nobody has."""
    known = dict(events)
    while True:
        lost = [
            event_id
            for event_id, event in known.items()
            if any(each not in known for each in (*event.prev_events, *event.auth_events))
        ]
        if not lost:
            return known
        for event_id in lost:
            del known[event_id]


@dataclass
class Verdict:
    """What every server should think of a room's events."""

    rejected: set[str] = field(default_factory=set)
    before: dict[str, State] = field(default_factory=dict)
    after: dict[str, State] = field(default_factory=dict)

    def state_at(self, version: RoomVersion, tips: Collection[str], events: Mapping[str, Event]) -> State:
        """The current state, given the forward extremities."""
        states = [self.after[event_id] for event_id in sorted(tips)]
        return resolve(version, states, events, self.rejected) if len(states) > 1 else dict(states[0])


def judge_room(version: RoomVersion, events: Mapping[str, Event]) -> Verdict:
    """Go through a whole room in the order of its graph: for each event the state before it, whether it is
    rejected (against its auth events or the state before), and the state after it."""
    verdict = Verdict()
    waiting = dict(events)
    while waiting:
        ready = [
            event
            for event in waiting.values()
            if not any(other in waiting for other in (*event.prev_events, *event.auth_events))
        ]
        assert ready, "the room's events form a circle, or some are missing"
        for event in ready:
            del waiting[event.event_id]
            before = verdict.state_at(version, event.prev_events, events) if event.prev_events else {}
            verdict.before[event.event_id] = before
            after = dict(before)
            if not (
                auth_events_right(event, events, verdict.rejected)
                and allowed(event, auth_state(event, events, ()))
                and allowed(event, {key: events[found] for key, found in before.items()})
            ):
                verdict.rejected.add(event.event_id)
            elif event.key is not None:
                after[event.key] = event.event_id
            verdict.after[event.event_id] = after
    return verdict
