# SPDX-License-Identifier: Apache-2.0
"""Why things are as they are: an event's fate, a room's condition, which event won a place in the state.

For operators (`minihs explain`). Only reads, and works alike on a running server and on its files. The
verdicts are made anew, by the rules as they are now; what was decided at the time is in `outcome`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minihs.matrix import canonical
from minihs.matrix.auth_rules import AuthError, PowerLevels, check_auth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, not_found
from minihs.matrix.event import Event
from minihs.matrix.state_resolution.ordering import is_power_event
from minihs.matrix.state_resolution.store import MissingEventError
from minihs.rooms.authorise import MissingAuthEvents, check_by_auth_events
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head, load
from minihs.rooms.policy import is_recommended, policy_server_of
from minihs.rooms.state import Key, StateRef
from minihs.store import facts, memberships, partial, rooms
from minihs.store.database import Reader
from minihs.store.events import Outcome, StoredEvent

MAX_MERGES = 500
"""Forks of the past that are looked at to find where a conflict was decided."""


def explain_event(db: Reader, event_id: str) -> JsonObject:
    """Raises M_NOT_FOUND."""
    graph = Graph(db)
    stored = graph.stored(event_id)
    waiting = facts.staged(db, event_id)
    if stored is None:
        if waiting is None:
            raise not_found("This server has never kept such an event.")
        return {"event_id": event_id, "inbox": waiting}
    event = stored.event
    answer: JsonObject = {
        **_brief(event),
        "room_id": event.room_id,
        "room_version": event.version.version,
        "outcome": _outcome(stored.outcome),
        "reason": stored.reason,
        "outlier": stored.outlier,
        "received_ts": stored.received_ts,
        "depth": event.depth,
        "place": None if stored.topo is None else {"topo": stored.topo, "arrival": stored.arrival},
        "redacted": stored.redacted_by is not None,
        "bytes": len(canonical.encode(event.json)),
        "signed_by": sorted(event.json.get("signatures", {})),
        "prev_events": [_reference(graph, prev_id) for prev_id in event.prev_events],
        "auth_events": [_reference(graph, auth_id) for auth_id in event.auth_events],
        "checks": _checks(db, graph, stored),
    }
    if waiting is not None:
        answer["inbox"] = waiting
    if event.key is not None:
        current = memberships.current_state_event(db, stored.room_nid, *event.key)
        answer["is_current_state"] = current == event_id
        answer["current_state_event"] = current
    return answer


def explain_room(db: Reader, room_id: str, now_ms: int) -> JsonObject:
    """Raises M_NOT_FOUND."""
    room = rooms.get(db, room_id)
    if room is None:
        raise not_found("This server has never heard of the room.")
    servers = facts.servers_of(db, room.room_nid)
    answer: JsonObject = {
        "room_id": room_id,
        "version": room.version,
        "resident": room.resident,
        "published": room.published,
        "members": facts.memberships_of(db, room.room_nid),
        "local_members": memberships.local_joined(db, room.room_nid),
        "servers": len(servers),
        "largest_servers": dict(servers[: facts.MAX_LISTED]),
        "events": facts.events_of(db, room.room_nid),
        "state_events": memberships.count_current_state(db, room.room_nid),
        "inbox": facts.inbox_of(db, room_id, now_ms),
        "gaps": len(rooms.backward_extremities(db, room.room_nid)),
        "forward_extremities": [],
    }
    joining = partial.get(db, room.room_nid)
    if joining is not None:
        answer["members_awaited"] = {
            "joined_through": joining.host,
            "attempts": joining.attempts,
            "next": joining.retry_at,
            "events_since": partial.count_since(db, room.room_nid, joining.event_nid),
        }
    if room.resident:
        graph = Graph(db)
        head = load(db, graph, room_id)
        policy = policy_server_of(graph, head)
        answer["policy_server"] = None if policy is None else policy.host
        answer["forward_extremities"] = [
            {**_brief(event), "depth": tip.depth, "topo": tip.topo}
            for tip in head.newest(1000)
            if (event := graph.event(tip.event_id)) is not None
        ]
    return answer


def explain_state(db: Reader, room_id: str, type: str, state_key: str) -> JsonObject:
    """Raises M_NOT_FOUND."""
    room = rooms.get(db, room_id)
    if room is None or not room.resident:
        raise not_found("This server is not in such a room.")
    graph, key = Graph(db), (type, state_key)
    head = load(db, graph, room_id)
    current = graph.lookup(head.current, key)
    answer: JsonObject = {
        "room_id": room_id,
        "type": type,
        "state_key": state_key,
        "current": None if current is None else _reference(graph, current),
        "events": [
            _reference(graph, each) for each in facts.events_at_key(db, room.room_nid, type, state_key)
        ],
    }
    answer["conflict"] = _open_conflict(graph, head, key) or _past_conflict(db, graph, head, key)
    return answer


def _open_conflict(graph: Graph, head: Head, key: Key) -> JsonObject | None:
    """The extremities disagree now."""
    refs = [tip.after for tip in head.newest(1000)]
    if len({graph.lookup(ref, key) for ref in refs}) < 2:
        return None
    winner = graph.lookup(head.current, key)
    return {"between": "the forward extremities", **_contest(graph, head, refs, key, winner)}


def _past_conflict(db: Reader, graph: Graph, head: Head, key: Key) -> JsonObject | None:
    """The newest event whose parents disagreed."""
    for event_id, before in facts.merges(db, head.room_nid, MAX_MERGES):
        event = graph.event(event_id)
        refs = []
        for prev_id in event.prev_events if event is not None else ():
            stored = graph.stored(prev_id)
            if stored is not None and stored.after_group is not None:
                refs.append(StateRef(stored.after_group))
        if len({graph.lookup(ref, key) for ref in refs}) > 1:
            winner = graph.lookup(StateRef(before), key)
            return {"between": f"the parents of {event_id}", **_contest(graph, head, refs, key, winner)}
    return None


def _contest(graph: Graph, head: Head, refs: Sequence[StateRef], key: Key, winner: str | None) -> JsonObject:
    """The resolution of these states, gone through again: what it tried for that key, in its order."""
    held = {graph.lookup(ref, key) for ref in refs}
    untried = "not tried: another one stayed before its turn came"
    try:
        tried = [each for each in graph.replayed(head.version, refs) if each[0].key == key]
    except MissingEventError as missing:
        tried, untried = [], f"not tried: {missing}"
    candidates = [
        {**_candidate(graph, head, event), "refused": refusal, "wins": event.event_id == winner}
        for event, refusal in tried
    ]
    seen = {event.event_id for event, _ in tried}
    left = [event for each in held if each is not None and (event := graph.event(each)) is not None]
    for event in sorted(left, key=lambda event: event.event_id):
        if event.event_id not in seen:
            candidates.append({**_candidate(graph, head, event), "refused": untried, "wins": False})
    return {
        "winner": winner,
        "missing_on_one_side": None in held,
        "candidates": candidates,
        "why": _why(head.version.state_res),
    }


def _candidate(graph: Graph, head: Head, event: Event) -> JsonObject:
    level = _level_of_sender(graph, head, event)
    return {
        **_brief(event),
        "power_event": is_power_event(event),
        "senders_level": None if math.isinf(level) else level,
    }


def _why(algorithm: str) -> str:
    if algorithm == "v1":
        return "State resolution version 1: the deepest event that the rules allow one after the other stays."
    return (
        f"State resolution {algorithm}: power events are replayed first, by the sender's power; then the "
        "others, those first that go by the oldest power levels (the highest mainline position), then by "
        "timestamp and id. What the rules do not allow is passed over; the last one that they allow stays."
    )


def _level_of_sender(graph: Graph, head: Head, event: Event) -> float:
    state = {}
    for auth_id in event.auth_events:
        auth = graph.event(auth_id)
        if auth is not None and auth.key is not None:
            state[auth.key] = auth
    create = head.create_event(graph)
    if create is not None:
        state.setdefault(("m.room.create", ""), create)
    return float(PowerLevels.from_state(state).user(event.sender))


def _checks(db: Reader, graph: Graph, stored: StoredEvent) -> list[JsonObject]:
    """The checks on receipt, made now: what each says and by which events."""
    event = stored.event
    try:
        head = load(db, graph, event.room_id)
    except MatrixError:
        return []
    found: list[JsonObject] = []
    try:
        verdict = check_by_auth_events(graph, event, head.create_event(graph))
        reason = None if verdict.outcome is Outcome.ACCEPTED else verdict.reason
    except MissingAuthEvents as missing:
        reason = f"auth events are missing: {', '.join(missing.args[0])}"
    found.append(_check("auth events", reason))
    if stored.before_group is not None:
        before = StateRef(stored.before_group)
        found.append(_check("state before", _refusal(graph, head, event, before)))
    found.append(_check("current state", _refusal(graph, head, event, head.current)))
    policy = policy_server_of(graph, head)
    if policy is not None:
        signed = is_recommended(policy, event)
        found.append(_check("policy server", None if signed else f"not signed by {policy.host}"))
    return found


def _refusal(graph: Graph, head: Head, event: Event, ref: StateRef) -> str | None:
    try:
        check_auth(event, head.state(graph, ref))
    except AuthError as error:
        return str(error)
    return None


def _check(name: str, reason: str | None) -> JsonObject:
    return {"check": name, "allowed": reason is None, "reason": reason}


def _reference(graph: Graph, event_id: str) -> JsonObject:
    stored = graph.stored(event_id)
    if stored is None:
        return {"event_id": event_id, "known": False}
    return {
        **_brief(stored.event),
        "known": True,
        "outcome": _outcome(stored.outcome),
        "reason": stored.reason,
    }


def _brief(event: Event) -> JsonObject:
    brief: JsonObject = {
        "event_id": event.event_id,
        "type": event.type,
        "sender": event.sender,
        "origin_server_ts": event.origin_server_ts,
    }
    if event.state_key is not None:
        brief["state_key"] = event.state_key
    if event.membership is not None and event.type == "m.room.member":
        brief["membership"] = event.membership
    return brief


def _outcome(outcome: Outcome) -> str:
    return {Outcome.ACCEPTED: "accepted", Outcome.SOFT_FAILED: "soft-failed", Outcome.REJECTED: "rejected"}[
        outcome
    ]
