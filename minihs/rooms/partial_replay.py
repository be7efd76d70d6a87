# SPDX-License-Identifier: Apache-2.0
"""The whole state takes the place of the partial one, at our join and at every event since.

All that came since the join is judged again, in the order in which it came, on a head that begins with the
join and the whole state: by the same code as when it came, so that in the end everything is as if all members
had been known from the beginning. Then one commit writes what came of it: states, verdicts, extremities, the
current state and what is unfolded from it.

What clients saw meanwhile stays true: the states of the room that they were told, by position, become those
same states with the members added that were missing (`partial_states.retell`). So what changes for a client
from any of those positions to now is what we had been wrong about, and what is new; not the thousands of
members who were there all the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
import trio

from minihs.rooms.admission import Source
from minihs.rooms.batch import Batch
from minihs.rooms.entry import Entry
from minihs.rooms.head import Head, Tip
from minihs.rooms.parts import Parts
from minihs.rooms.placement import place_live
from minihs.rooms.state import StateRef
from minihs.store import (
    events,
    ids,
    inbox,
    memberships,
    outbound,
    partial,
    partial_states,
    rooms,
    state,
)
from minihs.store.database import Tx
from minihs.store.events import Outcome, StoredEvent
from minihs.store.partial import PartialJoin

log = structlog.get_logger()

_BATCH = 100


@dataclass(slots=True)
class _Judged:
    """What came of an event."""

    nid: int
    event_id: str
    was: Outcome
    outcome: Outcome
    reason: str | None
    before: StateRef | None
    after: StateRef | None
    is_ours: bool
    redaction: Entry | None
    """The entry, if there is a redaction to be done by it."""


class _ReplayBatch(Batch):
    """All that is built upon an event comes after it: that its children are on disk already says nothing."""

    def _is_built_upon(self, event_id: str) -> bool:
        return False


class Replay:
    """Runs in the room's task."""

    def __init__(self, parts: Parts, room_id: str, join: PartialJoin) -> None:
        assert join.full_group is not None  # noqa: S101  (the caller has it)
        self._parts = parts
        self._room_id = room_id
        self._join = join
        self._full = join.full_group
        self._judged: list[_Judged] = []
        found = events.get_nids(parts.db.read, [join.event_nid])
        self._event: StoredEvent = found[join.event_nid]

    async def run(self) -> None:
        parts, room_id = self._parts, self._room_id
        old = parts.head(room_id)
        event = self._event.event
        before = StateRef(self._full)
        after = before.with_event(event)
        head = Head(room_id, old.room_nid, old.version, left_behind=old.left_behind)
        head.tips = {event.event_id: Tip.of(event, self._event.topo or 0, after)}
        head.current = after
        batch = _ReplayBatch(parts.db, parts.graph, head, parts.our_name, parts.heads)
        batch.placed[event.event_id] = (self._event.topo, after)
        gap_states = {event.prev_events[0]: before} if len(event.prev_events) == 1 else {}
        try:
            await self._judge_all(batch, gap_states)
            head.current = head.current.settled()
            await parts.db.write(lambda tx: self._write(tx, batch, after))
        finally:
            batch.discard()
            parts.graph.drop_pending([judged.event_id for judged in self._judged])
        for event_id in (event.event_id, *(judged.event_id for judged in self._judged)):
            parts.graph.forget(event_id)
        parts.heads.pop(room_id)
        wrong = [judged for judged in self._judged if judged.outcome is not judged.was]
        for judged in wrong:
            log.info(
                "an event is judged differently now that the room's members are known",
                event_id=judged.event_id,
                room=room_id,
                was=judged.was.name,
                now=judged.outcome.name,
                reason=judged.reason,
            )
        log.info("all members of a room are known", room=room_id, events=len(self._judged), wrong=len(wrong))

    async def _judge_all(self, batch: Batch, gap_states: dict[str, StateRef]) -> None:
        parts = self._parts
        nids = partial.events_since(parts.db.read, self._join.room_nid, self._join.event_nid)
        for start in range(0, len(nids), _BATCH):
            part = nids[start : start + _BATCH]
            found = events.get_nids(parts.db.read, part)
            for nid in part:
                started = trio.current_time()
                self._judge(batch, found[nid], gap_states)
                await parts.turns.give_way(self._room_id, started, self._room_id)

    def _judge(self, batch: Batch, stored: StoredEvent, gap_states: dict[str, StateRef]) -> None:
        event = stored.event
        gaps = {
            prev_id: ref
            for prev_id, ref in gap_states.items()
            if prev_id in event.prev_events and prev_id not in batch.placed
        }
        entry = place_live(batch, event, stored.received_ts, Source.TRANSACTION, gaps)
        # The event itself and its entry may be large, and all of them come by: keep what the commit needs.
        batch.entries.clear()
        if entry.outcome is stored.outcome:
            self._parts.graph.drop_pending([event.event_id])
        has_redaction = entry.redaction_of is not None or entry.redacted_by or entry.awaited_redaction_of
        self._judged.append(
            _Judged(
                stored.nid,
                event.event_id,
                stored.outcome,
                entry.outcome,
                entry.reason,
                entry.before,
                entry.after,
                self._parts.is_ours(event.sender),
                entry if has_redaction else None,
            )
        )

    # -- in the writer -------------------------------------------------------------------------------

    def _write(self, tx: Tx, batch: _ReplayBatch, after_join: StateRef) -> None:
        room_nid, room_id, head = self._join.room_nid, self._room_id, batch.head
        groups: dict[int, tuple[StateRef, int]] = {}
        before = rooms.get(tx, room_id)
        assert before is not None  # noqa: S101  (we are in it)
        assert before.state_group is not None  # noqa: S101  (as above)
        hosts_before = set(rooms.hosts(tx, room_nid))
        join_group = batch.group(tx, after_join, groups)
        assert join_group is not None  # noqa: S101  (no state is empty after a join)
        partial_states.settle(
            tx, self._event.nid, Outcome.ACCEPTED, None, self._full, join_group, shown_before=True
        )
        for judged in self._judged:
            partial_states.settle(
                tx,
                judged.nid,
                judged.outcome,
                judged.reason,
                batch.group(tx, judged.before, groups),
                batch.group(tx, judged.after, groups),
                shown_before=judged.was is not Outcome.REJECTED,
            )
            if judged.redaction is not None:
                batch.redact(tx, judged.redaction, judged.nid)
        tips = ids.event_nids(tx, head.tips)
        partial_states.set_forward_extremities(tx, room_nid, tips.values())

        pos = tx.next_pos()
        partial_states.retell(tx, room_nid, self._join.joined_pos, self._event.after_group, join_group)
        current = batch.group(tx, head.current, groups)
        assert current is not None  # noqa: S101  (as above)
        self._unfold(tx, before.state_group, current, pos)
        nids = [self._event.nid, *(judged.nid for judged in self._judged)]
        partial.complete(tx, room_nid, pos, nids)
        partial.count_hosts(tx, room_nid)
        self._send_to_latecomers(tx, hosts_before)
        inbox.hasten_room(tx, room_id)
        tx.wake(f"room:{room_id}")

    def _unfold(self, tx: Tx, was: int, now: int, pos: int) -> None:
        """Members who were there all the time count as of our join, as they would had we known them then."""
        room_nid, our_name = self._join.room_nid, self._parts.our_name
        base = state.read_group(tx, self._full)
        old: dict[int, int | None] = {}
        new: dict[int, int | None] = {}
        changes = state.diff(tx, was, now)
        names = ids.state_keys(tx, changes)
        for key_nid, (held, event_nid) in changes.items():
            # Our own users are to be told of it as of now.
            is_ours = names[key_nid][1].endswith(f":{our_name}")
            is_old = held is None and event_nid == base.get(key_nid) and not is_ours
            (old if is_old else new)[key_nid] = event_nid
        joined_pos = self._join.joined_pos
        memberships.unfold(tx, room_nid, old, pos=joined_pos, our_name=our_name)
        memberships.apply_state_changes(tx, room_nid, now, new, pos=pos, our_name=our_name)
        memberships.end_stale(tx, room_nid, pos=pos, our_name=our_name)
        resident = bool(memberships.local_joined(tx, room_nid))
        rooms.set_resident(tx, room_nid, resident)

    def _send_to_latecomers(self, tx: Tx, hosts_before: set[str]) -> None:
        """What we said meanwhile did not go to servers that nobody had told us of."""
        hosts = set(rooms.hosts(tx, self._join.room_nid)) - hosts_before - {self._parts.our_name}
        host_set = outbound.intern_host_set(tx, hosts)
        if host_set is None:
            return
        for judged in self._judged:
            if judged.is_ours and judged.was is judged.outcome is Outcome.ACCEPTED:
                outbound.enqueue(tx, judged.nid, host_set)
