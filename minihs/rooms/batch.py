# SPDX-License-Identifier: Apache-2.0
"""Events of one room that go to disk together, in one commit with all that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count

from minihs.matrix.event import Event
from minihs.rooms.entry import Entry
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head, Heads, Tip
from minihs.rooms.state import MergedRef, StateRef
from minihs.store import (
    client_txns,
    events,
    ids,
    inbox,
    memberships,
    new_events,
    outbound,
    partial,
    rooms,
    state,
)
from minihs.store.database import Database, Tx
from minihs.store.events import Outcome
from minihs.store.new_events import NewEvent

MAX_LOOK_THROUGH = 200
"""Parents looked at to find out which extremities an event replaces."""


class Batch:
    """Collects entries, keeps the head in step, writes all in one commit.

    If the write fails the head it worked on is stale: load it anew.
    """

    def __init__(self, db: Database, graph: Graph, head: Head, our_name: str, heads: Heads) -> None:
        self.db = db
        self.graph = graph
        self.head = head
        self.our_name = our_name
        self._heads = heads
        self.entries: list[Entry] = []
        self._parents: set[str] = set()
        """What accepted entries of the timeline are built upon."""
        self._awaiting: dict[str, list[Entry]] = {}
        """Redactions among the entries, by the target that is not here yet."""
        self._unheard: set[str] = set()
        """Events that nothing on disk names, nor did when the batch began."""
        self._written: StateRef | None = None
        """The current state on disk, as long as there are entries that may move it."""
        self.placed: dict[str, tuple[int | None, StateRef]] = {}
        """event id → (topo, state after) of entries that have a place."""
        self.done: list[int] = []
        """Inbox rows that are dealt with."""
        self.completed: list[Event] = []
        """Events that we had in their redacted form only, whole."""
        self.also: Callable[[Tx], object] | None = None
        """More to write in the same commit, after the entries."""
        self.deferred: list[tuple[int, int]] = []
        """Inbox rows to try again, each with the time (ms)."""

    def __bool__(self) -> bool:
        return bool(self.entries or self.done or self.deferred)

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.awaited_redaction_of is not None:
            self._awaiting.setdefault(entry.awaited_redaction_of, []).append(entry)
        if entry.outcome is Outcome.ACCEPTED and not entry.outlier:
            self._parents.update(entry.event.prev_events)
        self.graph.add_pending(entry.event, entry.outcome)
        if entry.after is not None:
            self.placed[entry.event.event_id] = (entry.topo, entry.after)
        if self.head.partial is not None and not entry.outlier:
            self.head.partial.events += 1

    def send_on(self, event: Event, *, but: str) -> None:
        """If the event was accepted, it goes to all servers in the room but that one, which has it."""
        for entry in self.entries:
            if entry.event == event and entry.outcome is Outcome.ACCEPTED:
                entry.hosts = {*rooms.hosts(self.db.read, self.head.room_nid)} - {self.our_name, but}

    def accept(self, entry: Entry) -> None:
        """Add an accepted event of the timeline: make it an extremity and move the current state.

        It is no extremity if something accepted is built upon it already, as when a parent comes after its
        child. Either all of this happens, or (an exception) nothing.
        """
        assert entry.after is not None  # noqa: S101  (of every accepted timeline event)
        head, event = self.head, entry.event
        self._heads.pop(head.room_id)  # from here on it is ahead of the disk
        tips = dict(head.tips)
        retired = self._tips_before(event)
        for tip_id in retired:
            del tips[tip_id]
        tip = not entry.history and not self._is_built_upon(event.event_id)
        if tip:
            tips[event.event_id] = Tip.of(event, entry.topo or 0, entry.after)
        if not tips:  # history that claims to follow all that we have: it can't be
            tips, retired = head.tips, []
        self.graph.add_pending(event, entry.outcome)
        try:
            if tip and self._adds_no_state(entry.after, retired):
                new = head.current
            else:
                new = self.graph.merged(head.version, [each.after for each in tips.values()])
                if self._is_membership_of_ours(event):
                    new = new.settled()
        except BaseException:
            self.graph.drop_pending([event.event_id])
            raise
        entry.tip, entry.retired = tip, retired
        if not new.same_as(head.current):
            if self._written is None:
                self._written = head.current
            entry.current = head.current = new
        head.tips = tips
        self.add(entry)

    def _is_membership_of_ours(self, event: Event) -> bool:
        """From its very place on the user does or does not see what comes, so the current state has to be
        known there."""
        return event.type == "m.room.member" and (event.state_key or "").endswith(f":{self.our_name}")

    def _adds_no_state(self, after: StateRef, retired: Collection[str]) -> bool:
        """With an event of this state in the place of those extremities, are the states as before?"""
        tips = self.head.tips
        if len(retired) == 1:  # as nearly always
            return tips[next(iter(retired))].after.same_as(after)
        replaced = [tips[tip_id].after for tip_id in retired] or [tip.after for tip in tips.values()]
        alike = (each.same_as(after) for each in replaced)
        return all(alike) if retired else any(alike)

    def _tips_before(self, event: Event) -> list[str]:
        """The extremities that the event is built upon, directly or by way of what was not accepted."""
        found: list[str] = []
        seen: set[str] = set()
        waiting = list(event.prev_events)
        while waiting and len(seen) < MAX_LOOK_THROUGH:
            event_id = waiting.pop()
            if event_id in seen:
                continue
            seen.add(event_id)
            if event_id in self.head.tips:
                found.append(event_id)
            elif self.graph.outcome(event_id) not in (None, Outcome.ACCEPTED):
                hidden = self.graph.event(event_id)
                waiting.extend(hidden.prev_events if hidden is not None else ())
        return found

    def look_ahead(self, event_ids: Collection[str]) -> None:
        """These are to be given their places: find out in one go which of them the disk knows anything of.
        (Only this room's own work adds to that, so it holds until this batch is written.)
        """
        heard_of = ids.event_nids(self.db.read, event_ids)
        self._unheard = set(event_ids) - heard_of.keys()
        self.graph.are_absent(self._unheard)
        self.graph.stored_many(heard_of)

    def is_new(self, event_id: str) -> None:
        """We have just made this event: nobody can have named it."""
        self._unheard.add(event_id)

    def _is_built_upon(self, event_id: str) -> bool:
        return event_id in self._parents or (
            event_id not in self._unheard and events.is_built_upon(self.db.read, self.head.room_nid, event_id)
        )

    def redactions_before(self, event_id: str) -> Iterator[tuple[Event, StateRef | None]]:
        """Accepted redactions that came before this event, their target; with the state before each."""
        for entry in self._awaiting.get(event_id, ()):
            yield entry.event, entry.before
        if event_id not in self._unheard:
            for redaction_id in events.pending_redactions(self.db.read, event_id):
                stored = self.graph.stored(redaction_id)
                if stored is not None and stored.outcome is Outcome.ACCEPTED:
                    yield stored.event, StateRef(stored.before_group)

    async def commit(self) -> dict[str, int]:
        """Write everything. Returns event id → number."""
        self._unheard = set()
        if not self:
            return {}
        creating = self.head.room_nid == 0
        self._settle_current()
        numbers = self._numbers()
        try:
            nids, groups = await self.db.write(lambda tx: self._write(tx, numbers, creating=creating))
            for ref, group in groups:
                ref.settle(group)
            self.graph.learn_numbers(nids)
        finally:
            self.graph.drop_pending([entry.event.event_id for entry in self.entries])
        for entry in self.entries:
            self.graph.forget(entry.event.event_id)
            if entry.redaction_of is not None:
                self.graph.forget(entry.redaction_of.event_id)
        for event in self.completed:
            self.graph.forget(event.event_id)
        self.entries, self.done, self.completed, self.deferred, self.also = [], [], [], [], None
        self._written = None
        self._parents.clear()
        self._awaiting.clear()
        self.placed.clear()
        self._heads.keep(self.head)
        return nids

    def _numbers(self) -> dict[str, int]:
        """Those of the events that ours name, as far as they are at hand: the writer need not look them
        up."""
        named = (
            event_id
            for entry in self.entries
            for event_id in (*entry.event.prev_events, *entry.event.auth_events)
        )
        return self.graph.numbers(named)

    def _settle_current(self) -> None:
        """Find out how the entries moved the current state. What it was between two of them is passed over,
        unless somebody asked for it. Raises MissingEventError.
        """
        at = self._written
        if at is None:
            return
        moving = [(entry, entry.current) for entry in self.entries if entry.current is not None]
        for entry, current in moving:
            if entry is not moving[-1][0] and isinstance(current, MergedRef) and current.is_open:
                entry.current = None
                continue
            new = current.settled()
            changes = {key: pair[1] for key, pair in self.graph.difference(at, new).items()}
            if changes:
                entry.current, entry.current_changes, at = new, changes, new
            else:
                entry.current = None
        self.head.current = at

    def discard(self) -> None:
        """Give up what was not written. The head is ahead of the disk now: nobody may use it any more."""
        self.graph.drop_pending([entry.event.event_id for entry in self.entries])
        self._heads.pop(self.head.room_id)

    # -- in the writer -----------------------------------------------------------------------------

    def _write(
        self, tx: Tx, numbers: Mapping[str, int], *, creating: bool
    ) -> tuple[dict[str, int], list[tuple[StateRef, int]]]:
        groups: dict[int, tuple[StateRef, int]] = {}
        if creating:
            self.head.room_nid = rooms.intern(tx, self.head.room_id, self.head.version.version)
        for event_id, nid in numbers.items():
            tx.remember(event_id, nid)
        nids = self._write_entries(tx, groups) if self.entries else {}
        self._move_tips(tx, nids)
        for event in self.completed:
            events.complete(tx, event)
        inbox.remove_all(tx, self.done)
        for seq, not_before in self.deferred:
            inbox.defer(tx, seq, not_before)
        if self.also is not None:
            self.also(tx)
        return nids, list(groups.values())

    def _move_tips(self, tx: Tx, nids: Mapping[str, int]) -> None:
        """Bring the forward extremities up to date: most of a batch's own were so only within it."""
        gone: set[str] = set()
        come: set[str] = set()
        for entry in self.entries:
            gone.update(entry.retired)
            come.difference_update(entry.retired)
            if entry.tip:
                come.add(entry.event.event_id)
        before = ids.intern_events(tx, gone - nids.keys())
        events.move_forward_extremities(
            tx, self.head.room_nid, before.values(), [nids[event_id] for event_id in come]
        )

    def _write_entries(self, tx: Tx, groups: dict[int, tuple[StateRef, int]]) -> dict[str, int]:
        """The events, and then what follows from each. Returns event id → number."""
        room_nid, entries = self.head.room_nid, self.entries
        moving = [entry.is_news or entry.current is not None for entry in entries]
        free = iter(tx.next_positions(sum(moving)))
        positions = [next(free) if moves else None for moves in moving]
        history = count(events.next_history_place(tx, room_nid), -1) if self._has_history() else count()
        new: list[NewEvent] = []
        for entry, pos in zip(entries, positions, strict=True):
            arrival = next(history) if entry.history else pos if entry.is_news else None
            new.append(self._row(tx, entry, arrival, groups))
        nids, unheard = new_events.insert_all(tx, room_nid, new)
        placed = {nid: each for nid, each in zip(nids, new, strict=True) if not each.outlier}
        if self.head.partial is not None:
            for nid in placed:
                partial.add_event(tx, room_nid, nid)
        tips = {tip_id for entry in entries for tip_id in entry.retired}
        new_events.connect_all(tx, room_nid, placed, unheard=unheard, tips=tips)
        for entry, nid, pos in zip(entries, nids, positions, strict=True):
            self._write_rest(tx, entry, nid, pos, groups)
        if any(moving):
            tx.wake(f"room:{self.head.room_id}")
        return {entry.event.event_id: nid for entry, nid in zip(entries, nids, strict=True)}

    def _has_history(self) -> bool:
        return any(entry.history for entry in self.entries)

    def _row(
        self, tx: Tx, entry: Entry, arrival: int | None, groups: dict[int, tuple[StateRef, int]]
    ) -> NewEvent:
        return NewEvent(
            entry.event,
            entry.outcome,
            entry.received_ts,
            reason=entry.reason,
            outlier=entry.outlier,
            before_group=self.group(tx, entry.before, groups),
            after_group=self.group(tx, entry.after, groups),
            topo=None if entry.outcome is Outcome.REJECTED else entry.topo,
            arrival=arrival,
        )

    def _write_rest(
        self, tx: Tx, entry: Entry, nid: int, pos: int | None, groups: dict[int, tuple[StateRef, int]]
    ) -> None:
        """What follows from an event that is stored. `pos`: of what it changes for clients."""
        if entry.current is not None:
            assert pos is not None  # noqa: S101  (each that moves the state has one)
            self._move_current(tx, entry, pos, groups)
        self.redact(tx, entry, nid)
        if entry.hosts:
            host_set = outbound.intern_host_set(tx, entry.hosts)
            if host_set is not None:
                outbound.enqueue(tx, nid, host_set)
        if entry.txn is not None:
            txn = entry.txn
            client_txns.remember(
                tx, txn.user_id, txn.device_id, txn.scope, txn.txn_id, nid, entry.received_ts
            )

    def _move_current(self, tx: Tx, entry: Entry, pos: int, groups: dict[int, tuple[StateRef, int]]) -> None:
        group = self.group(tx, entry.current, groups)
        assert group is not None  # noqa: S101  (a current state is never empty)
        changes: dict[int, int | None] = {}
        for (type, state_key), event_id in entry.current_changes.items():
            key_nid = ids.intern_key(tx, type, state_key)
            changes[key_nid] = None if event_id is None else ids.intern_event(tx, event_id)
        memberships.apply_state_changes(
            tx, self.head.room_nid, group, changes, pos=pos, our_name=self.our_name
        )
        if any(type == "m.room.member" for type, _ in entry.current_changes):
            resident = bool(memberships.local_joined(tx, self.head.room_nid))
            rooms.set_resident(tx, self.head.room_nid, resident)
            if not resident:
                partial.abandon(tx, self.head.room_nid)

    def redact(self, tx: Tx, entry: Entry, nid: int) -> None:
        """What is to be redacted because of this event."""
        if entry.redaction_of is not None:
            target_nid = ids.intern_event(tx, entry.redaction_of.event_id)
            events.redact(tx, target_nid, nid, entry.redaction_of)
        if entry.redacted_by is not None:
            events.redact(tx, nid, ids.intern_event(tx, entry.redacted_by), entry.event.redacted())
        if entry.awaited_redaction_of is not None:
            events.add_pending_redaction(tx, ids.intern_event(tx, entry.awaited_redaction_of), nid)

    def group(self, tx: Tx, ref: StateRef | None, groups: dict[int, tuple[StateRef, int]]) -> int | None:
        """The number of a state, its groups made as needed; the same ref gives the same group."""
        if ref is None:
            return None
        assert not isinstance(ref, MergedRef)  # noqa: S101  (nothing is resolved in here)
        if ref.group is not None:
            return ref.group
        if id(ref) in groups:
            return groups[id(ref)][1]
        parent = self.group(tx, ref.parent, groups)
        if not ref.changes:
            if parent is None:
                return None
            groups[id(ref)] = (ref, parent)
            return parent
        changes: dict[int, int | None] = {}
        for (type, state_key), event_id in ref.changes.items():
            key_nid = ids.intern_key(tx, type, state_key)
            changes[key_nid] = None if event_id is None else ids.intern_event(tx, event_id)
        group = state.new_group(tx, self.head.room_nid, parent, changes)
        groups[id(ref)] = (ref, group)
        return group
