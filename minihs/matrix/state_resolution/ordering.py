# SPDX-License-Identifier: Apache-2.0
"""The two orders in which conflicted events are replayed (spec: rooms/v2, "Definitions")."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable

from minihs.matrix.auth_rules import Level, PowerLevels
from minihs.matrix.event import Event
from minihs.matrix.state_resolution.graph import AuthGraph
from minihs.matrix.state_resolution.store import EventStore, create_id_of, need

_POWER_KEYS = (("m.room.power_levels", ""), ("m.room.join_rules", ""), ("m.room.create", ""))


def is_power_event(event: Event) -> bool:
    """Whether the event might take somebody's ability to do something.

    Power levels and join rules under another state key than "" rule nothing, so they are no power events; the
    servers in the field agree on that, and that a create event counts as one.
    """
    if event.type == "m.room.member":
        return event.membership in ("leave", "ban") and event.sender != event.state_key
    return event.key in _POWER_KEYS


def power_order(graph: AuthGraph, store: EventStore, conflicted: Collection[str]) -> list[str]:
    """The power events of the full conflicted set and what of their auth chains is in it, in reverse
    topological power ordering: auth events first, and else the senders of more power, the earlier timestamp,
    the lower id.

    The auth chains are followed within the set only, as other servers do. Where a way from one event of the
    set to another leads out of it (before version 12, which takes such ways into the set), to see further
    than the others would make another room state than theirs.
    """
    edges: dict[str, list[str]] = {}
    stack = [event_id for event_id in conflicted if is_power_event(need(store, event_id))]
    while stack:
        event_id = stack.pop()
        if event_id not in edges:
            edges[event_id] = [auth for auth in graph.auth_events(event_id) if auth in conflicted]
            stack += edges[event_id]

    ranks = {event_id: _power_rank(need(store, event_id), store) for event_id in edges}
    cited_by: dict[str, list[str]] = {event_id: [] for event_id in edges}
    open_edges = {event_id: len(auth) for event_id, auth in edges.items()}
    for event_id, auth in edges.items():
        for auth_id in auth:
            cited_by[auth_id].append(event_id)

    ordered: list[str] = []
    ready = [ranks[event_id] for event_id, count in open_edges.items() if count == 0]
    heapq.heapify(ready)
    while open_edges:
        if not ready:
            # A circle, possible only where ids are not hashes: go on with the first event in it.
            ready = [min(ranks[event_id] for event_id in open_edges)]
        event_id = heapq.heappop(ready)[2]
        del open_edges[event_id]
        ordered.append(event_id)
        for citing in cited_by[event_id]:
            if citing in open_edges:
                open_edges[citing] -= 1
                if open_edges[citing] == 0:
                    heapq.heappush(ready, ranks[citing])
    return ordered


def _power_rank(event: Event, store: EventStore) -> tuple[Level, int, str]:
    return (-_sender_level(event, store), event.origin_server_ts, event.event_id)


def _sender_level(event: Event, store: EventStore) -> Level:
    """The power of the sender by the event's own auth events."""
    auth = {found.key: found for found in (need(store, auth_id) for auth_id in event.auth_events)}
    create = auth.get(("m.room.create", ""))
    if event.version.room_id_is_create_hash and event.type != "m.room.create":
        create = need(store, create_id_of(event.room_id))
    return PowerLevels(auth.get(("m.room.power_levels", "")), create).user(event.sender)


class Mainline:
    """The power levels that were in force one after the other, back from the resolved ones.

    Found as far back as somebody asks: most events are judged by the latest few.
    """

    def __init__(self, graph: AuthGraph, levels: str | None) -> None:
        self._graph = graph
        self._positions: dict[str, float] = {}
        """Of power levels on the mainline their index, of others where they branched off; for those asked."""
        self._on_it: dict[str, int] = {}
        self._next = levels

    def order(self, events: Iterable[Event]) -> list[Event]:
        """Sort by mainline ordering: first what is based on early power levels, then by timestamp and id."""
        return sorted(
            events, key=lambda event: (-self.position(event.event_id), event.origin_server_ts, event.event_id)
        )

    def position(self, event_id: str) -> float:
        """How far back on the mainline the event's own power levels are; endless if they aren't on it."""
        passed: dict[str, None] = {}
        position = math.inf
        levels = self._graph.levels_before(event_id)
        while levels is not None and levels not in passed:
            known = self._positions.get(levels)
            if known is None and self._is_on_it(levels):
                known = self._on_it[levels]
            if known is not None:
                position = known
                break
            passed[levels] = None
            levels = self._graph.levels_before(levels)
        for levels in passed:
            self._positions[levels] = position
        return position

    def _is_on_it(self, event_id: str) -> bool:
        while event_id not in self._on_it and self._next is not None:
            self._on_it[self._next] = len(self._on_it)
            following = self._graph.levels_before(self._next)
            self._next = following if following not in self._on_it else None
        return event_id in self._on_it
