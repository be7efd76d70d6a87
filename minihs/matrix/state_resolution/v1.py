# SPDX-License-Identifier: Apache-2.0
"""State resolution of room version 1 (spec: rooms/v1, "State resolution").

Known to reset rooms to older states; that is why there is a version 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha1

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.matrix.event import Event
from minihs.matrix.state_resolution.replay import PartialState, Witness
from minihs.matrix.state_resolution.store import EventStore, Key, StateLookup, need

_IN_TURN = ("m.room.power_levels", "m.room.join_rules", "m.room.member")
"""The types whose conflicts are settled first, each with the results of those before it."""


def resolve_v1(
    unconflicted: StateLookup,
    conflicts: Mapping[Key, Iterable[str]],
    store: EventStore,
    witness: Witness | None = None,
) -> dict[Key, str]:
    """The event for each key under which there is more than one.

    Unlike in later versions, a key that some states don't have is no conflict, and is not among `conflicts`.
    """
    state = PartialState(store, unconflicted, hidden=frozenset(conflicts))
    pending = {
        key: sorted((need(store, event_id) for event_id in event_ids), key=_rank)
        for key, event_ids in conflicts.items()
    }
    for type in _IN_TURN:
        settled: dict[Key, str] = {}
        for key in [key for key in pending if key[0] == type]:
            settled[key] = _last_of_chain(key, pending.pop(key), state, witness)
        state.put.update(settled)
    others = {key: _first_allowed(events, state, witness) for key, events in pending.items()}
    return state.put | others


def _rank(event: Event) -> tuple[int, int]:
    """Ascending depth (as it was claimed), then descending SHA-1 of the id."""
    digest = sha1(event.event_id.encode(), usedforsecurity=False).digest()
    return (event.json["depth"], -int.from_bytes(digest))


def _last_of_chain(key: Key, events: list[Event], state: PartialState, witness: Witness | None) -> str:
    """Take the first event, then each next one that is allowed when the one before is in the state; stop at
    one that is not. Keys of the same type don't see each other's results."""
    best = events[0]
    _tell(witness, best, None)
    for event in events[1:]:
        state.put[key] = best.event_id
        try:
            check_auth(event, state)
        except AuthError as error:
            _tell(witness, event, str(error))
            break
        best = event
        _tell(witness, event, None)
    state.put.pop(key, None)
    return best.event_id


def _first_allowed(events: list[Event], state: PartialState, witness: Witness | None) -> str:
    """The event of most depth, and of those the one with the lowest SHA-1, that is allowed. If none is, the
    text leaves open what happens; like the others do, we keep the event of least depth."""
    for event in reversed(events):
        try:
            check_auth(event, state)
        except AuthError as error:
            _tell(witness, event, str(error))
            continue
        _tell(witness, event, None)
        return event.event_id
    return events[0].event_id


def _tell(witness: Witness | None, event: Event, refusal: str | None) -> None:
    if witness is not None:
        witness(event, refusal)
