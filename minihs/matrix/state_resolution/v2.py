# SPDX-License-Identifier: Apache-2.0
"""State resolution since room version 2, and version 2.1 of it since room version 12.

Spec: rooms/v2 and rooms/v12, "State resolution", "Algorithm"; the steps have its numbers. Version 2.1 differs
in what is replayed (the conflicted state subgraph too) and on top of what (nothing).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence

from minihs.matrix.event import Event
from minihs.matrix.state_resolution.graph import AuthGraph, auth_difference, conflicted_subgraph
from minihs.matrix.state_resolution.ordering import Mainline, power_order
from minihs.matrix.state_resolution.replay import PartialState, Witness, replay
from minihs.matrix.state_resolution.store import EventStore, Key, StateLookup, need


class _Nothing:
    """The empty state map."""

    def get(self, key: Key, /) -> str | None:
        return None


def resolve_v2(
    unconflicted: StateLookup,
    hidden: Container[Key],
    heads: Sequence[Collection[str]],
    shared_chain: Container[str],
    store: EventStore,
    graph: AuthGraph,
    *,
    from_nothing: bool,
    witness: Witness | None = None,
) -> dict[Key, str]:
    """What comes of the conflicted keys, and of keys that only the replayed events have.

    `heads` are, state by state, the events under the conflicted keys; `hidden` are those keys, under which
    `unconflicted` may say anything. `shared_chain` is the auth chain of the unconflicted events.
    `from_nothing` makes it version 2.1.
    """
    conflicted: set[str] = set().union(*heads)
    agreed = PartialState(store, unconflicted, hidden)
    difference = auth_difference(graph, heads, shared_chain)
    full = conflicted | {event_id for event_id in difference if not _is_in(agreed, need(store, event_id))}
    if from_nothing:
        full |= conflicted_subgraph(graph, conflicted)
    state = PartialState(store, _Nothing() if from_nothing else unconflicted, hidden)

    # 1 and 2
    power_events = power_order(graph, store, full)
    replay([need(store, event_id) for event_id in power_events], state, store, witness)

    # 3 and 4
    mainline = Mainline(graph, state.event_id(("m.room.power_levels", "")))
    remaining = [need(store, event_id) for event_id in full.difference(power_events)]
    replay(mainline.order(remaining), state, store, witness)

    # 5
    return {key: event_id for key, event_id in state.put.items() if agreed.below(key) is None}


def _is_in(agreed: PartialState, event: Event) -> bool:
    """Whether the event stands in all of the states alike.

    By the text it is nevertheless in the auth difference if only some of the states cite it. The servers in
    the field count a state's own events as reached by it, so that such an event is no difference to them; to
    order the others by it would make another room state than theirs.
    """
    return event.key is not None and agreed.below(event.key) == event.event_id
