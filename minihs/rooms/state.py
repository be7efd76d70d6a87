# SPDX-License-Identifier: Apache-2.0
"""The state at a point of the DAG, as rooms work with it before and after it is on disk.

A `StateRef` is either a state group of the database or a parent and what changed since: events of a batch
that is not written yet have their states too. Once the batch is on disk its refs are folded into groups
(`settle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minihs.matrix.event import Event

if TYPE_CHECKING:
    from minihs.rooms.graph import Graph

type Key = tuple[str, str]
"""(type, state_key)"""


type Like = tuple[str, str, tuple[str, ...]]
"""Type, sender and auth events of a message: all that the rules look at."""

MAX_KNOWN = 1000
"""Lookups that a state remembers. Beyond, it forgets them all and starts anew."""


class StateRef:
    """Immutable but for `settle`. Compare by identity or `group`."""

    __slots__ = ("allowed", "changes", "group", "known", "parent")

    def __init__(
        self,
        group: int | None = None,
        parent: StateRef | None = None,
        changes: Mapping[Key, str | None] | None = None,
    ) -> None:
        self.group = group
        self.parent = parent
        self.changes = dict(changes or {})
        """key → event id; None: the key is gone."""
        self.known: dict[Key, str | None] = {}
        """What was looked up before."""
        self.allowed: set[Like] = set()
        """Messages that this state and their auth events, none of them rejected, were found to allow."""

    def with_event(self, event: Event) -> StateRef:
        """The state after a state event; itself after any other."""
        if event.state_key is None:
            return self
        return self.with_changes({(event.type, event.state_key): event.event_id})

    def with_changes(self, changes: Mapping[Key, str | None]) -> StateRef:
        return StateRef(None, self.settled(), changes) if changes else self

    def allow(self, like: Like) -> None:
        """Remember that. (A state never changes.)"""
        if len(self.allowed) >= MAX_KNOWN:
            self.allowed.clear()
        self.allowed.add(like)

    def settled(self) -> StateRef:
        """Itself; of a state that is yet to be resolved, what comes of that."""
        return self

    def settle(self, group: int) -> None:
        """It is on disk now, under this number."""
        if self.group is None:
            known = dict(self.parent.known) if self.parent is not None else {}
            known.update(self.known)
            known.update(self.changes)
            self.known = known if len(known) <= MAX_KNOWN else {}
            self.group, self.parent, self.changes = group, None, {}

    def base_and_changes(self) -> tuple[int | None, dict[Key, str | None]]:
        """The nearest group on disk (None: the empty state), and all that changed since."""
        layers: list[StateRef] = []
        ref: StateRef | None = self.settled()
        while ref is not None and ref.group is None:
            layers.append(ref)
            ref = ref.parent
        changes: dict[Key, str | None] = {}
        for layer in reversed(layers):
            changes.update(layer.changes)
        return (None if ref is None else ref.group), changes

    def same_as(self, other: StateRef) -> bool:
        return self is other or (self.group is not None and self.group == other.group)

    def __repr__(self) -> str:
        base, changes = self.base_and_changes()
        return f"<StateRef group {base} and {len(changes)} changes>"


class MergedRef(StateRef):
    """The state after several events at once, resolved when somebody asks for what they don't agree in.

    Most of the time nobody does: while a batch is taken in, an event on one of two branches is judged by keys
    that are the same on both.
    """

    __slots__ = ("_resolve", "of")

    def __init__(self, of: Sequence[StateRef], resolve: Callable[[Sequence[StateRef]], StateRef]) -> None:
        super().__init__()
        self.of = of
        self._resolve = resolve

    @property
    def is_open(self) -> bool:
        """It was not resolved yet."""
        return self.parent is None

    def settled(self) -> StateRef:
        """Raises MissingEventError."""
        if self.parent is None:
            self.parent = self._resolve(self.of)
        return self.parent


class StateMap(Mapping[Key, Event]):
    """A state as the auth rules read it: (type, state_key) → Event, looked up when asked for."""

    def __init__(self, graph: Graph, ref: StateRef, extra: Mapping[Key, Event] | None = None) -> None:
        self._graph = graph
        self._ref = ref
        self._extra = extra or {}

    def get(self, key: Key, default: Any = None, /) -> Any:
        """What the auth rules ask with, many times for each event."""
        found = self._extra.get(key)
        if found is None:
            event_id = self._graph.lookup(self._ref, key)
            found = None if event_id is None else self._graph.event(event_id)
        return default if found is None else found

    def __getitem__(self, key: Key) -> Event:
        found: Event | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[Key]:
        return iter(self._graph.full(self._ref))

    def __len__(self) -> int:
        return len(self._graph.full(self._ref))
