# SPDX-License-Identifier: Apache-2.0
"""Taking over the state of a room from a resident server's answer, in bounded memory.

Three passes over the spooled answer: `read` decodes, verifies and indexes; `authorise` applies the auth
rules, parents first; `promote` writes everything in one commit. Between the passes an event is its place in
the file and its id. What comes after a join by partial state takes the same way, but is written bit by bit
(`keep`, `state_nids`): see rooms/partial_join.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from minihs.matrix import canonical
from minihs.matrix.event import Event
from minihs.matrix.event_format import well_formed_signatures
from minihs.matrix.federation_errors import RemoteProtocolError
from minihs.matrix.hashes import has_right_content_hash, is_same
from minihs.matrix.room_versions import RoomVersion
from minihs.rooms.admission import Source, admit
from minihs.rooms.authorise import MissingAuthEvents, check_by_auth_events
from minihs.rooms.parts import Parts
from minihs.rooms.state import Key
from minihs.store import events, ids, memberships, new_events, partial, rooms, state
from minihs.store.byte_cache import ByteCache
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent

log = structlog.get_logger()

_BATCH = 250
MAX_EVENTS = 400_000
_CACHE_BYTES = 6 * 1024 * 1024


@dataclass(slots=True)
class _Item:
    """An event of the answer. The answer stays on disk: this is the place, and what the passes need."""

    raws: Sequence[bytes | memoryview]
    place: int
    auth_events: tuple[str, ...]
    key: Key | None
    in_state: bool
    is_whole: bool
    """False: the content hash was wrong, only the redacted form counts."""
    rejected: str | None = None


class Adoption:
    def __init__(self, parts: Parts, room_id: str, version: RoomVersion) -> None:
        self._parts = parts
        self._room_id = room_id
        self._version = version
        self._items: dict[str, _Item] = {}
        self._cache: ByteCache[str, Event] = ByteCache(_CACHE_BYTES)
        self._missing: set[str] = set()
        """Events that lack auth events: as good as not there."""
        self._taken_ids: set[str] = set()
        """Other events are stored under these ids: as good as not there, too."""
        self._rejected_before: set[str] = set()
        self._creates: list[str] = []
        """Events of type m.room.create. There should be one."""
        self._judged: set[str] = set()
        """Events whose auth events were all there, and are judged as well."""

    @property
    def size(self) -> int:
        return len(self._items)

    # -- pass 1 ------------------------------------------------------------------------------------

    async def read(self, host: str, raws: Sequence[bytes | memoryview], *, is_state: bool) -> None:
        """Verify and index. Events that fail format, signature or room are left out, as the spec has it."""
        if len(raws) + len(self._items) > MAX_EVENTS:
            raise RemoteProtocolError(host, f"the room has more than {MAX_EVENTS} state events")
        for start in range(0, len(raws), _BATCH):
            part = list(raws[start : start + _BATCH])
            pdus = [self._decode(raw) for raw in part]
            results = await admit(
                pdus,
                self._version,
                self._room_id,
                Source.SEND_JOIN_ANSWER,
                keys=self._parts.keys,
                runtime=self._parts.runtime,
            )
            taken: list[Event] = []
            for place, result in enumerate(results, start):
                if not isinstance(result, Event):
                    log.debug("left out of a join", room=self._room_id, reason=result.text)
                    continue
                is_whole = has_right_content_hash(result)
                known = self._items.get(result.event_id)
                if known is not None:
                    known.in_state |= is_state
                    if known.is_whole or not is_whole:
                        continue
                    self._judged.clear()  # by the redacted form
                elif result.key == ("m.room.create", ""):
                    self._creates.append(result.event_id)
                in_state = is_state or (known is not None and known.in_state)
                self._items[result.event_id] = _Item(
                    raws, place, result.auth_events, result.key, in_state, is_whole
                )
                self._remember(result, len(part[place - start]))
                taken.append(result)
            self._look_up(taken)
            self._judge_ready(taken)
            if start and start % (20 * _BATCH) == 0:
                log.info("reading the state of a room", room=self._room_id, done=start, of=len(raws))
        if not is_state:
            await self._judge_early()

    def _decode(self, raw: bytes | memoryview) -> object:
        try:
            return self._parse(bytes(raw))
        except canonical.BadJson:
            return None

    def _parse(self, raw: bytes) -> Any:
        """An event as JSON. Nothing is done with it before it has passed `Event.from_wire`."""
        if self._version.strict_json:
            return canonical.loads_checked(raw)
        return canonical.loads(raw, max_depth=canonical.MAX_CARRIED_DEPTH)

    # -- pass 2 ------------------------------------------------------------------------------------

    async def authorise(self) -> None:
        """Apply the auth rules to every event, parents first.

        Those against them are rejected. Those whose auth events are not there, or form a circle, are left
        out: the server that answers must not be able to have good events rejected by keeping back others.
        """
        create = self._find_create()
        kept: dict[str, _Item] = {}
        for count, event_id in enumerate(self._parents_first()):
            if event_id not in self._judged:
                event = self.event(event_id)
                if event is None:
                    continue
                try:
                    self._judge(event, create)
                except MissingAuthEvents as missing:
                    log.debug("left out of a join", event_id=event_id, missing=missing.args[0])
                    self._missing.add(event_id)
                    self._cache.drop(event_id)
                    continue
            kept[event_id] = self._items[event_id]
            if count % _BATCH == _BATCH - 1:
                await trio.lowlevel.checkpoint()
        self._items = kept

    def _look_up(self, taken: Sequence[Event]) -> None:
        """What we know of these events from before."""
        event_ids = [event.event_id for event in taken]
        self._rejected_before |= events.rejected(self._parts.db.read, event_ids)
        if self._version.event_format == 1:
            held = events.get_many(self._parts.db.read, event_ids)
            self._taken_ids.update(
                event.event_id
                for event in taken
                if event.event_id in held and not is_same(held[event.event_id].event, event)
            )

    def _judge_ready(self, at_hand: Iterable[Event]) -> None:
        """Those of the events whose auth events are judged: they need not be read from the file again."""
        create = self._find_create()
        if create is None:
            return
        for event in at_hand:
            if event.event_id in self._taken_ids or event.event_id in self._missing:
                continue
            if self._judged.issuperset(event.auth_events):
                self._judge(event, create)

    async def _judge_early(self) -> None:
        """What came before its auth events did. Of a chain only: the state mostly rests upon it."""
        waiting = [event_id for event_id in self._parents_first() if event_id not in self._judged]
        for start in range(0, len(waiting), _BATCH):
            self._judge_ready(filter(None, map(self.event, waiting[start : start + _BATCH])))
            await trio.lowlevel.checkpoint()

    def _judge(self, event: Event, create: Event | None) -> None:
        """Raises MissingAuthEvents."""
        item = self._items[event.event_id]
        verdict = check_by_auth_events(self, event, create)
        if event.event_id in self._rejected_before:
            item.rejected = "rejected when it came to us before"
        else:
            item.rejected = None if verdict.outcome is Outcome.ACCEPTED else verdict.reason
        self._judged.add(event.event_id)

    def event(self, event_id: str) -> Event | None:
        if event_id in self._taken_ids:
            return None
        found = self._cache.get(event_id)
        if found is None:
            item = self._items.get(event_id)
            if item is None or event_id in self._missing:
                return None
            found = self._load(event_id, item)
            self._remember(found, len(item.raws[item.place]))
        return found

    def _remember(self, event: Event, size: int) -> None:
        self._cache.put(event.event_id, event, 2000 + 4 * size)

    def is_rejected(self, event_id: str) -> bool:
        item = self._items.get(event_id)
        return item is not None and item.rejected is not None

    def _load(self, event_id: str, item: _Item) -> Event:
        pdu = self._parse(bytes(item.raws[item.place]))
        pdu.pop("unsigned", None)
        pdu["signatures"] = well_formed_signatures(pdu["signatures"])
        event = Event.from_store(pdu, self._version, event_id)
        return event if item.is_whole else event.redacted()

    def _find_create(self) -> Event | None:
        for event_id in self._creates:
            event = self.event(event_id)
            if event is not None and event.room_id == self._room_id:
                return event
        return None

    def _parents_first(self) -> Iterator[str]:
        waiting: dict[str, int] = {}
        children: dict[str, list[str]] = {}
        for event_id, item in self._items.items():
            inside = {parent for parent in item.auth_events if parent in self._items}
            waiting[event_id] = len(inside)
            for parent in inside:
                children.setdefault(parent, []).append(event_id)
        ready = deque(event_id for event_id, count in waiting.items() if count == 0)
        while ready:
            event_id = ready.popleft()
            yield event_id
            for child in children.pop(event_id, ()):
                waiting[child] -= 1
                if waiting[child] == 0:
                    ready.append(child)

    # -- pass 3 ------------------------------------------------------------------------------------

    def take_as_state(self, event_ids: Iterable[str]) -> None:
        """These are part of the state, too, where it has nothing else."""
        taken = self.state_ids()
        for event_id in event_ids:
            item = self._items.get(event_id)
            if item is not None and item.key is not None and item.key not in taken:
                item.in_state = True

    def state_ids(self) -> dict[Key, str]:
        return {
            item.key: event_id
            for event_id, item in self._items.items()
            if item.in_state and item.key is not None and item.rejected is None
        }

    def state_map(self) -> Mapping[Key, Event]:
        return _LazyState(self, self.state_ids())

    def chunks(self) -> Iterator[list[str]]:
        """The ids of all events, some hundreds at a time, for `keep`."""
        waiting = list(self._items)
        for start in range(0, len(waiting), _BATCH):
            yield waiting[start : start + _BATCH]

    async def keep(self, room_nid: int, event_ids: Sequence[str]) -> None:
        """Store these, without a place."""
        now = self._parts.now()

        def write(tx: Tx) -> None:
            self._insert(tx, room_nid, event_ids, now)

        await self._parts.db.write(write)
        for event_id in event_ids:
            self._parts.graph.forget(event_id)

    def state_nids(self, tx: Tx) -> dict[int, int | None]:
        """The state in numbers."""
        state_ids = self.state_ids()
        keys, nids = ids.intern_keys(tx, state_ids), ids.intern_events(tx, state_ids.values())
        return {keys[key]: nids[event_id] for key, event_id in state_ids.items()}

    def _insert(self, tx: Tx, room_nid: int, event_ids: Sequence[str], now: int) -> None:
        new_events.insert_all(tx, room_nid, [self._as_new(event_id, now) for event_id in event_ids])

    def _as_new(self, event_id: str, now: int) -> NewEvent:
        item = self._items[event_id]
        outcome = Outcome.ACCEPTED if item.rejected is None else Outcome.REJECTED
        event = self._cache.get(event_id) or self._load(event_id, item)
        return NewEvent(event, outcome, now, reason=item.rejected, outlier=True)

    async def promote(
        self, join: Event, partial_from: str | None = None, servers: Sequence[str] = ()
    ) -> None:
        """Store all of it, with our join as the newest event of the room.

        `partial_from`: the members are missing; who left them out. `servers`: who is in the room then.
        """
        now, our_name = self._parts.now(), self._parts.our_name

        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, self._room_id, self._version.version)
            rooms.settle_version(tx, room_nid, self._version.version)
            memberships.drop_unfolded(tx, room_nid)
            partial.abandon(tx, room_nid)
            for event_ids in self.chunks():
                self._insert(tx, room_nid, event_ids, now)
            unfolded = self.state_nids(tx)
            before = state.new_group(tx, room_nid, None, unfolded)
            own = {
                ids.intern_key(tx, "m.room.member", join.state_key or ""): ids.intern_event(tx, join.event_id)
            }
            after = state.new_group(tx, room_nid, before, own)
            pos = tx.next_pos()
            new = NewEvent(
                join,
                Outcome.ACCEPTED,
                now,
                before_group=before,
                after_group=after,
                topo=events.place_after_gap(tx, room_nid, join.depth),
                arrival=pos,
            )
            nid = new_events.insert(tx, room_nid, new)
            events.move_forward_extremities(tx, room_nid, (), (nid,))
            new_events.connect_all(tx, room_nid, {nid: new})
            rooms.came_in_by(tx, room_nid, nid)
            if partial_from is not None:
                partial.presume_hosts(tx, room_nid, servers)
                partial.begin(tx, room_nid, nid, partial_from, pos)
            memberships.apply_state_changes(tx, room_nid, after, unfolded | own, pos=pos, our_name=our_name)
            if partial_from is None:
                memberships.end_stale(tx, room_nid, pos=pos, our_name=our_name)
            rooms.set_resident(tx, room_nid, True)
            tx.wake(f"room:{self._room_id}")

        self._parts.heads.pop(self._room_id)
        await self._parts.db.write(write)
        for event_id in (join.event_id, *self._items):
            self._parts.graph.forget(event_id)


class _LazyState(Mapping[Key, Event]):
    def __init__(self, adoption: Adoption, state_ids: Mapping[Key, str]) -> None:
        self._adoption = adoption
        self._ids = state_ids

    def __getitem__(self, key: Key) -> Event:
        event = self._adoption.event(self._ids[key])
        if event is None:
            raise KeyError(key)
        return event

    def __iter__(self) -> Iterator[Key]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)
