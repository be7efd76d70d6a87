# SPDX-License-Identifier: Apache-2.0
"""The graph that events form by their auth events (spec: rooms/v2 and rooms/v12, "Definitions").

Nothing here recurses: auth chains of 100,000 events are legal. In room versions 1 and 2 ids are not hashes,
so hostile events can form circles; every walk ends nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager

from minihs.matrix.state_resolution.store import EventStore, MissingEventError, need


class ChainTooLong(Exception):
    """There is more of an auth chain than was wanted."""


class AuthGraph:
    """Auth edges of one room, remembered.

    Edges never change, so a server may keep one of these for a room that forks often; without one, resolution
    makes its own each time. `edges` may tell the auth events of an event more cheaply than by loading it.
    """

    def __init__(self, store: EventStore, edges: Callable[[str], Sequence[str]] | None = None) -> None:
        self._store = store
        self._edges_of = edges
        self._edges: dict[str, tuple[str, ...]] = {}
        self._heights: dict[str, int] = {}
        self._levels: dict[str, str | None] = {}

    def auth_events(self, event_id: str) -> tuple[str, ...]:
        """The auth events of an event, each once. MissingEventError if the event is not there."""
        edges = self._edges.get(event_id)
        if edges is None:
            found = (
                need(self._store, event_id).auth_events
                if self._edges_of is None
                else self._edges_of(event_id)
            )
            edges = self._edges[event_id] = tuple(dict.fromkeys(found))
        return edges

    def levels_before(self, event_id: str) -> str | None:
        """The m.room.power_levels event among the auth events of an event."""
        if event_id not in self._levels:
            found = (
                auth_id
                for auth_id in self.auth_events(event_id)
                if need(self._store, auth_id).key == ("m.room.power_levels", "")
            )
            self._levels[event_id] = next(found, None)
        return self._levels[event_id]

    def height(self, event_id: str) -> int:
        """The length of the longest way down from the event: more than that of each of its auth events."""
        heights = self._heights
        entered: set[str] = set()
        stack = [event_id]
        while stack:
            current = stack[-1]
            if current in heights:
                stack.pop()
                continue
            below = self.auth_events(current)
            if current not in entered:
                entered.add(current)
                waiting = [auth for auth in below if auth not in heights and auth not in entered]
                if waiting:
                    stack += waiting
                    continue
            heights[current] = 1 + max((heights.get(auth, 0) for auth in below), default=0)
            stack.pop()
        return heights[event_id]

    def chain(
        self, event_ids: Iterable[str], beyond: Container[str] = (), *, most: int | None = None
    ) -> set[str]:
        """The auth chain of these events. The walk does not enter `beyond`, which must hold, with an event,
        its whole auth chain. Raises ChainTooLong if there are more than `most`."""
        chain: set[str] = set()
        seen: set[str] = set()
        stack = list(event_ids)
        while stack:
            for auth_id in self.auth_events(stack.pop()):
                if auth_id not in seen:
                    seen.add(auth_id)
                    if auth_id not in beyond:
                        chain.add(auth_id)
                        stack.append(auth_id)
            if most is not None and len(chain) > most:
                raise ChainTooLong
        return chain


SHORT_CHAIN = 200
"""Events of an auth chain that are walked through rather than to ask what all states share."""


def auth_difference(graph: AuthGraph, heads: Sequence[Collection[str]], shared: Container[str]) -> set[str]:
    """The events that are in the full auth chain of some of the states, but not of all.

    `heads` are, state by state, the events in which the states differ, and `shared` the auth chain of those
    in which they agree. What is in `shared` is in every state's chain, and so is all that it leads to.

    To ask `shared` may cost as much as the state is large. Chains that are short are walked to their ends,
    and mostly nothing is left to ask about; otherwise the walks stop at what is shared.
    """
    try:
        chains = [graph.chain(events, most=SHORT_CHAIN) for events in heads]
    except (ChainTooLong, MissingEventError):  # what is missing may lie beyond what is shared
        chains = [graph.chain(events, shared) for events in heads]
    in_some: set[str] = set().union(*chains)
    different = in_some.difference(chains[0].intersection(*chains[1:]))
    return {event_id for event_id in different if event_id not in shared}


def conflicted_subgraph(graph: AuthGraph, conflicted: Collection[str]) -> set[str]:
    """All events on the ways that lead along auth events from one conflicted event to another (rooms/v12).

    An event no higher than the lowest conflicted one leads to none, so the walk need not go below that.
    """
    floor = min(map(graph.height, conflicted), default=0)
    reached = set(conflicted)
    stack = list(reached)
    while stack:
        for auth_id in graph.auth_events(stack.pop()):
            if auth_id not in reached and graph.height(auth_id) > floor:
                reached.add(auth_id)
                stack.append(auth_id)
    leading: set[str] = set()
    for event_id in sorted(reached, key=graph.height):
        if any(auth in leading or auth in conflicted for auth in graph.auth_events(event_id)):
            leading.add(event_id)
    return leading.union(conflicted)


class ChainIndex:
    """The auth chain of a room state, kept while the state changes, one event at a time.

    `resolve` wants to know what is in the auth chain of the state that all forks share. To walk that anew
    takes time in the order of the state; here a change costs what it changes. Holds for each event of the
    chain how many events of the state or of the chain cite it.

    A container of event ids: the events of the chain (not those of the state, unless they are in the chain
    too). After a MissingEventError it is half changed, and to be thrown away.
    """

    def __init__(self, graph: AuthGraph, state: Iterable[str] = ()) -> None:
        self._graph = graph
        self._state: set[str] = set()
        self._cited: dict[str, int] = {}
        for event_id in state:
            self.add(event_id)

    def __contains__(self, event_id: object) -> bool:
        return event_id in self._cited

    def __len__(self) -> int:
        return len(self._cited)

    def add(self, event_id: str) -> None:
        """An event has come into the state."""
        if event_id in self._state:
            return
        known = event_id in self._cited
        self._state.add(event_id)
        stack = [] if known else [event_id]
        while stack:
            for auth_id in self._graph.auth_events(stack.pop()):
                times = self._cited.get(auth_id, 0)
                self._cited[auth_id] = times + 1
                if times == 0 and auth_id not in self._state:
                    stack.append(auth_id)

    def remove(self, event_id: str) -> None:
        """An event has gone from the state."""
        if event_id not in self._state:
            return
        self._state.remove(event_id)
        stack = [] if event_id in self._cited else [event_id]
        while stack:
            for auth_id in self._graph.auth_events(stack.pop()):
                times = self._cited[auth_id] - 1
                if times:
                    self._cited[auth_id] = times
                else:
                    del self._cited[auth_id]
                    if auth_id not in self._state:
                        stack.append(auth_id)

    @contextmanager
    def without(self, event_ids: Iterable[str]) -> Iterator[ChainIndex]:
        """For the time of a `with`, the index of the state without these events."""
        gone = [event_id for event_id in event_ids if event_id in self._state]
        for event_id in gone:
            self.remove(event_id)
        try:
            yield self
        finally:
            for event_id in gone:
                self.add(event_id)
