# SPDX-License-Identifier: Apache-2.0
"""One state out of several (spec: server-server-api, "Room State Resolution", and each room version)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from minihs.matrix.room_versions import RoomVersion
from minihs.matrix.state_resolution.graph import AuthGraph
from minihs.matrix.state_resolution.replay import Witness
from minihs.matrix.state_resolution.store import EventStore, Key, StateLookup
from minihs.matrix.state_resolution.v1 import resolve_v1
from minihs.matrix.state_resolution.v2 import resolve_v2


class _Layers:
    """What all states share: found among them, or looked up where the caller kept it to itself."""

    def __init__(self, found: Mapping[Key, str], rest: StateLookup) -> None:
        self._found = found
        self._rest = rest

    def get(self, key: Key, /) -> str | None:
        return self._found.get(key) or self._rest.get(key)


class _EitherChain:
    def __init__(self, found: Container[str], rest: Container[str]) -> None:
        self._found = found
        self._rest = rest

    def __contains__(self, event_id: object) -> bool:
        return event_id in self._found or event_id in self._rest


def resolve(
    version: RoomVersion,
    state_sets: Sequence[Mapping[Key, str]],
    store: EventStore,
    *,
    rest: StateLookup | None = None,
    rest_chain: Container[str] = (),
    graph: AuthGraph | None = None,
    witness: Witness | None = None,
) -> dict[Key, str]:
    """The resolution of the states: by key, the id of the event. The order of the states does not matter.

    That is the simple form, which takes time in the order of the states. For large ones there is the lean
    form: `state_sets` hold only keys under which the states differ (and which of them a state lacks says
    something too); `rest` looks up what stands in all of them alike, and may answer anything for the keys
    given; `rest_chain` has the ids in the auth chain of the rest (a `ChainIndex` does, and must not be
    incomplete). The result is then what belongs on top of the rest: a key that is in `state_sets` and not in
    the result is gone.

    `graph` saves walking the same auth chains again if it is kept from call to call. `witness` is told what
    is tried. Raises MissingEventError.
    """
    if not state_sets:
        return {}
    outside: StateLookup = rest if rest is not None else {}
    values: dict[Key, set[str]] = {}
    for state in state_sets:
        for key, event_id in state.items():
            values.setdefault(key, set()).add(event_id)

    if version.state_res == "v1":
        found = {key: next(iter(ids)) for key, ids in values.items() if len(ids) == 1}
        disputed = {key: ids for key, ids in values.items() if len(ids) > 1}
        return found | resolve_v1(_Layers(found, outside), disputed, store, witness) if disputed else found

    # Since version 2 a key is also in conflict if one of the states doesn't have it.
    found = {
        key: next(iter(ids))
        for key, ids in values.items()
        if len(ids) == 1 and all(key in state for state in state_sets)
    }
    hidden = values.keys() - found.keys()
    if not hidden:
        return found
    graph = graph or AuthGraph(store)
    chain = graph.chain(found.values(), rest_chain)
    resolved = resolve_v2(
        _Layers(found, outside),
        hidden,
        [{event_id for key, event_id in state.items() if key in hidden} for state in state_sets],
        _EitherChain(chain, rest_chain),
        store,
        graph,
        from_nothing=version.state_res == "v2.1",
        witness=witness,
    )
    return found | resolved
