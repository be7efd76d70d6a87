# SPDX-License-Identifier: Apache-2.0
"""A room's events and states as the logic sees them: those on disk, and those of a batch not yet written.

Also state resolution over refs: only what differs between the states is looked at, never the whole room.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from functools import partial

from minihs.matrix.auth_rules import AUTH_TYPES
from minihs.matrix.event import Event
from minihs.matrix.room_versions import RoomVersion
from minihs.matrix.state_resolution import Witness, resolve
from minihs.rooms.state import MAX_KNOWN, Key, MergedRef, StateRef
from minihs.store import events, ids, rooms, state
from minihs.store.byte_cache import ByteCache
from minihs.store.database import Reader
from minihs.store.events import Outcome, StoredEvent

EVENTS_BYTES = 8 * 1024 * 1024
KEYS_BYTES = 1024 * 1024
RESOLVED_BYTES = 4 * 1024 * 1024
NUMBERS_BYTES = 64 * 1024
_EVENT_BYTES = 3_000
"""What a small event takes as Python objects, about; its JSON text counts on top."""

MAX_ABSENT = 2_000
"""Events that are known not to be here. Beyond, all are forgotten and asked for anew."""


class Graph:
    """Reads of one server's rooms, cached. Used on the loop only, and told of each commit (`see_commit`)."""

    def __init__(self, db: Reader) -> None:
        self._db = db
        self._cache: ByteCache[str, StoredEvent] = ByteCache(EVENTS_BYTES)
        self._key_nids: ByteCache[Key, int] = ByteCache(KEYS_BYTES)
        self._resolved: ByteCache[frozenset[int], StateRef] = ByteCache(RESOLVED_BYTES)
        self._numbers: ByteCache[str, int] = ByteCache(NUMBERS_BYTES)
        """Numbers of events that were written a moment ago: what comes next names them."""
        self._absent: set[str] = set()
        """Events that were not on disk when they were asked for, until the next commit."""
        self._pending: dict[str, tuple[Event, Outcome]] = {}
        """Events of batches that are being put together: seen by lookups, not on disk yet."""

    # -- events ------------------------------------------------------------------------------------

    def stored(self, event_id: str) -> StoredEvent | None:
        found = self._cache.get(event_id)
        if found is None and event_id not in self._absent:
            found = events.get(self._db, event_id)
            if found is not None:
                self._remember(found)
            else:
                self._miss((event_id,))
        return found

    def stored_many(self, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        found: dict[str, StoredEvent] = {}
        missing: list[str] = []
        for event_id in event_ids:
            cached = self._cache.get(event_id)
            if cached is not None:
                found[event_id] = cached
            elif event_id not in self._absent:
                missing.append(event_id)
        if missing:
            loaded = events.get_many(self._db, missing)
            found.update(loaded)
            self._miss(event_id for event_id in missing if event_id not in loaded)
            if len(loaded) <= 500:  # a bulk read must not push out what is in daily use
                for item in loaded.values():
                    self._remember(item)
        return found

    def numbers(self, event_ids: Iterable[str]) -> dict[str, int]:
        """The numbers of those events that are at hand."""
        found: dict[str, int] = {}
        for event_id in event_ids:
            if event_id in found:
                continue
            nid = self._numbers.get(event_id)
            if nid is None and (cached := self._cache.get(event_id)) is not None:
                nid = cached.nid
            if nid is not None:
                found[event_id] = nid
        return found

    def learn_numbers(self, numbers: Mapping[str, int]) -> None:
        """Those of events that were just written."""
        for event_id, nid in numbers.items():
            self._numbers.put(event_id, nid, 100 + len(event_id))

    def event(self, event_id: str) -> Event | None:
        waiting = self._pending.get(event_id)
        if waiting is not None:
            return waiting[0]
        found = self.stored(event_id)
        return None if found is None else found.event

    def get(self, event_id: str) -> Event | None:
        """`event` under the name that state resolution uses."""
        return self.event(event_id)

    def is_rejected(self, event_id: str) -> bool:
        waiting = self._pending.get(event_id)
        if waiting is not None:
            return waiting[1] is Outcome.REJECTED
        found = self.stored(event_id)
        return found is not None and found.outcome is Outcome.REJECTED

    def outcome(self, event_id: str) -> Outcome | None:
        """None for an event that we don't have."""
        waiting = self._pending.get(event_id)
        if waiting is not None:
            return waiting[1]
        found = self.stored(event_id)
        return None if found is None else found.outcome

    def has(self, event_id: str) -> bool:
        return event_id in self._pending or self.stored(event_id) is not None

    def is_on_disk(self, event_id: str) -> bool:
        return event_id not in self._pending

    def add_pending(self, event: Event, outcome: Outcome) -> None:
        self._pending[event.event_id] = (event, outcome)

    def drop_pending(self, event_ids: Collection[str]) -> None:
        for event_id in event_ids:
            self._pending.pop(event_id, None)

    def forget(self, event_id: str) -> None:
        """The stored event changed (redacted, no longer an outlier): read it anew."""
        self._cache.drop(event_id)

    def are_absent(self, event_ids: Collection[str]) -> None:
        """Somebody has just seen that these are not on disk."""
        self._miss(event_id for event_id in event_ids if self._cache.get(event_id) is None)

    def see_commit(self) -> None:
        """What was not on disk may be there now."""
        self._absent.clear()

    def _miss(self, event_ids: Iterable[str]) -> None:
        for event_id in event_ids:
            if len(self._absent) >= MAX_ABSENT:
                self._absent.clear()
            self._absent.add(event_id)

    def _remember(self, item: StoredEvent) -> None:
        size = _EVENT_BYTES + 2 * len(str(item.event.content))
        self._cache.put(item.event.event_id, item, size)

    def is_host_joined(self, room_nid: int, host: str) -> bool:
        """Has the server a user in the room? (By the current state on disk.)"""
        return rooms.has_host(self._db, room_nid, host)

    # -- states ------------------------------------------------------------------------------------

    def lookup(self, ref: StateRef, key: Key) -> str | None:
        """The event id at one place of a state."""
        if isinstance(ref, MergedRef):
            if ref.is_open:
                held = {self.lookup(each, key) for each in ref.of}
                # What all states agree in resolution leaves alone. What none has it may bring back, if it is
                # of a type that auth chains are made of.
                if len(held) == 1 and (None not in held or key[0] not in AUTH_TYPES):
                    return held.pop()
            ref = ref.settled()
        layer: StateRef | None = ref
        while layer is not None:
            if key in layer.changes:
                return layer.changes[key]
            if key in layer.known:
                return layer.known[key]
            if layer.group is not None:
                break
            layer = layer.parent
        if layer is None or layer.group is None:
            return None
        found = self._lookup_group(layer.group, key)
        if len(layer.known) >= MAX_KNOWN:
            layer.known.clear()
        layer.known[key] = found
        return found

    def _lookup_group(self, group: int, key: Key) -> str | None:
        nid = self.key_nid(key)
        if nid is None:
            return None
        event_nid = state.lookup(self._db, group, [nid]).get(nid)
        if event_nid is None:
            return None
        return ids.event_ids(self._db, [event_nid])[event_nid]

    def key_nid(self, key: Key) -> int | None:
        nid = self._key_nids.get(key)
        if nid is None:
            nid = ids.key_nid(self._db, *key)
            if nid is not None:
                self._key_nids.put(key, nid, 100 + len(key[0]) + len(key[1]))
        return nid

    def full(self, ref: StateRef) -> dict[Key, str]:
        """The whole state. Slow and large for big rooms; only for answers that must hold all of it."""
        base, changes = ref.base_and_changes()
        whole = {} if base is None else self.full_group(base)
        for key, event_id in changes.items():
            if event_id is None:
                whole.pop(key, None)
            else:
                whole[key] = event_id
        return whole

    def full_group(self, group: int) -> dict[Key, str]:
        by_nid = state.read_group(self._db, group)
        keys = ids.state_keys(self._db, by_nid.keys())
        event_ids = ids.event_ids(self._db, set(by_nid.values()))
        return {keys[key_nid]: event_ids[event_nid] for key_nid, event_nid in by_nid.items()}

    def difference(self, a: StateRef, b: StateRef) -> dict[Key, tuple[str | None, str | None]]:
        """The keys at which two states differ, with both event ids. Costs the changes, not the room."""
        a, b = a.settled(), b.settled()
        if a.same_as(b):
            return {}
        base_a, changes_a = a.base_and_changes()
        base_b, changes_b = b.base_and_changes()
        below = self._group_difference(base_a, base_b) if base_a != base_b else {}
        differing = {}
        for key in below.keys() | changes_a.keys() | changes_b.keys():
            held = below.get(key)
            pair = (
                changes_a[key] if key in changes_a else held[0] if held is not None else self.lookup(a, key),
                changes_b[key] if key in changes_b else held[1] if held is not None else self.lookup(b, key),
            )
            if pair[0] != pair[1]:
                differing[key] = pair
        return differing

    def _group_difference(self, a: int | None, b: int | None) -> dict[Key, tuple[str | None, str | None]]:
        if a is None or b is None:
            whole = self.full_group(a if a is not None else b or 0)
            return {key: (held, None) if b is None else (None, held) for key, held in whole.items()}
        by_nid = state.diff(self._db, a, b)
        keys = ids.state_keys(self._db, by_nid)
        event_ids = ids.event_ids(
            self._db, {nid for pair in by_nid.values() for nid in pair if nid is not None}
        )
        return {
            keys[key_nid]: (
                None if in_a is None else event_ids[in_a],
                None if in_b is None else event_ids[in_b],
            )
            for key_nid, (in_a, in_b) in by_nid.items()
        }

    def merged(self, version: RoomVersion, refs: Sequence[StateRef]) -> StateRef:
        """The state after several events at once (spec: state resolution of the room version), resolved when
        it is needed.
        """
        distinct: list[StateRef] = []
        for ref in refs:
            if not any(ref.same_as(other) for other in distinct):
                distinct.append(ref)
        if not distinct:
            return StateRef()
        if len(distinct) == 1:
            return distinct[0]
        return MergedRef(distinct, partial(self._resolve_once, version))

    def resolve(self, version: RoomVersion, refs: Sequence[StateRef]) -> StateRef:
        """The same, resolved now. Raises MissingEventError."""
        return self.merged(version, refs).settled()

    def _resolve_once(self, version: RoomVersion, distinct: Sequence[StateRef]) -> StateRef:
        groups = [ref.group for ref in distinct]
        memo = frozenset(group for group in groups if group is not None) if None not in groups else None
        if memo is not None:
            found = self._resolved.get(memo)
            if found is not None:
                return found
        resolved = self._resolve(version, distinct)
        if memo is not None:
            self._resolved.put(memo, resolved, 500 + 200 * len(resolved.changes))
        return resolved

    def replayed(self, version: RoomVersion, refs: Sequence[StateRef]) -> list[tuple[Event, str | None]]:
        """What a resolution of these states tries, in its order, and why the rules refuse it (None: they
        don't). Raises MissingEventError."""
        found: list[tuple[Event, str | None]] = []
        self._resolve(version, refs, lambda event, refusal: found.append((event, refusal)))
        return found

    def _resolve(
        self, version: RoomVersion, refs: Sequence[StateRef], witness: Witness | None = None
    ) -> StateRef:
        first, *others = refs
        differences = [self.difference(first, other) for other in others]
        held_by_first = {key: pair[0] for found in differences for key, pair in found.items()}
        if not held_by_first:
            return first
        differing = held_by_first.keys()
        state_sets = [_without_gaps(held_by_first)]
        for found in differences:
            state_sets.append(_without_gaps(held_by_first | {key: pair[1] for key, pair in found.items()}))
        self.stored_many(
            {event_id for held in state_sets for event_id in held.values()} - self._pending.keys()
        )
        result = resolve(
            version,
            state_sets,
            self,
            rest=_Shared(self, first, differing),
            rest_chain=_SharedChain(self._db, self, first, differing),
            witness=witness,
        )
        changes: dict[Key, str | None] = {}
        for key in differing | result.keys():
            held = held_by_first[key] if key in differing else self.lookup(first, key)
            if held != result.get(key):
                changes[key] = result.get(key)
        return first.with_changes(changes)


def _without_gaps(held: Mapping[Key, str | None]) -> dict[Key, str]:
    return {key: event_id for key, event_id in held.items() if event_id is not None}


class _Shared:
    """The part of the states that is the same in all of them, looked up when asked for."""

    def __init__(self, graph: Graph, ref: StateRef, differing: Set[Key]) -> None:
        self._graph = graph
        self._ref = ref
        self._differing = differing

    def get(self, key: Key, /) -> str | None:
        return None if key in self._differing else self._graph.lookup(self._ref, key)


class _SharedChain:
    """Is an event in the auth chain of the state that all forks share? Walked, by number, only if anybody
    asks.
    """

    def __init__(self, db: Reader, graph: Graph, ref: StateRef, differing: Set[Key]) -> None:
        self._db = db
        self._graph = graph
        self._ref = ref
        self._differing = differing
        self._chain: set[int] | None = None
        self._pending: set[str] = set()

    def __contains__(self, event_id: object) -> bool:
        if not isinstance(event_id, str):
            return False
        if self._chain is None:
            self._walk()
        assert self._chain is not None  # noqa: S101  (just walked)
        if event_id in self._pending:
            return True
        nid = ids.event_nid(self._db, event_id)
        return nid is not None and nid in self._chain

    def _walk(self) -> None:
        base, changes = self._ref.base_and_changes()
        heads: set[int] = set()
        if base is not None:
            by_key = state.read_group(self._db, base)
            for key in self._differing | changes.keys():
                nid = self._graph.key_nid(key)
                if nid is not None:
                    by_key.pop(nid, None)
            heads.update(by_key.values())
        cited = self._cited_by_changes(changes)
        self._chain = events.auth_chain(self._db, heads | cited) | cited

    def _cited_by_changes(self, changes: Mapping[Key, str | None]) -> set[int]:
        """The auth events of what is not on disk yet; those among them that are not either go to
        `_pending`.
        """
        cited: set[int] = set()
        waiting = [
            changed for key, changed in changes.items() if changed is not None and key not in self._differing
        ]
        while waiting:
            event = self._graph.event(waiting.pop())
            for auth_id in event.auth_events if event is not None else ():
                nid = ids.event_nid(self._db, auth_id)
                if nid is not None:
                    cited.add(nid)
                if not self._graph.is_on_disk(auth_id) and auth_id not in self._pending:
                    self._pending.add(auth_id)
                    waiting.append(auth_id)
        return cited
