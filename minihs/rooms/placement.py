# SPDX-License-Identifier: Apache-2.0
"""Giving an event its place: the state before it, the verdict, the state after, extremities, redactions."""

from __future__ import annotations

from collections.abc import Mapping

from minihs.matrix.auth_rules import redaction_allowed
from minihs.matrix.event import Event
from minihs.matrix.hashes import has_right_content_hash, is_same
from minihs.rooms.admission import Source
from minihs.rooms.authorise import Verdict, check_by_auth_events, judge
from minihs.rooms.batch import Batch
from minihs.rooms.entry import Entry
from minihs.rooms.graph import Graph
from minihs.rooms.head import Head
from minihs.rooms.state import StateRef
from minihs.store.events import MAX_GAP_STEP, Outcome


def is_placed(batch: Batch, event_id: str) -> bool:
    """Do we know the state after this event?"""
    if event_id in batch.placed:
        return True
    if event_id in batch.head.left_behind:
        return False
    stored = batch.graph.stored(event_id)
    return stored is not None and not stored.outlier and stored.room_nid == batch.head.room_nid


def follows_another_room(batch: Batch, event: Event) -> bool:
    """Does the event name one of another room as its parent? It would bring that room's state in here."""
    unknown = [prev_id for prev_id in event.prev_events if prev_id not in batch.placed]
    if not unknown:
        return False
    found = batch.graph.stored_many(unknown)
    return any(item.room_nid != batch.head.room_nid for item in found.values())


def missing_prevs(batch: Batch, event: Event) -> list[str]:
    """The parents that we lack, or don't know the state after."""
    return [prev_id for prev_id in event.prev_events if not is_placed(batch, prev_id)]


def is_settled(graph: Graph, event: Event) -> bool:
    """Nothing more is to be done about this event: it has its place, or was rejected for good, or can't be
    stored."""
    stored = graph.stored(event.event_id)
    if stored is not None and (not stored.outlier or stored.outcome is Outcome.REJECTED):
        return True
    return has_taken_id(graph, event)


def has_taken_id(graph: Graph, event: Event) -> bool:
    """Is another event stored under this one's id, or is it about to be, maybe in another room? What is
    judged must be what is kept."""
    held = graph.event(event.event_id)
    return held is not None and held is not event and not is_same(held, event)


def completes(graph: Graph, event: Event) -> bool:
    """Have we the event in its redacted form only, though nobody redacted it, and is this the whole?"""
    stored = graph.stored(event.event_id)
    return (
        stored is not None
        and stored.outcome is not Outcome.REJECTED
        and stored.redacted_by is None
        and not has_right_content_hash(stored.event)
        and has_right_content_hash(event)
        and is_same(stored.event, event)
    )


def place_live(
    batch: Batch,
    event: Event,
    received_ts: int,
    source: Source,
    gap_states: Mapping[str, StateRef] | None = None,
) -> Entry:
    """Judge an event whose prev_events are placed (or given in `gap_states`) and add it to the batch.

    Raises MissingAuthEvents, and Unsure in a room of which only part of the state is known.
    """
    graph, head = batch.graph, batch.head
    if follows_another_room(batch, event):
        return reject_placeless(batch, event, received_ts, "a prev event is of another room")
    before, topo = _before(batch, event, gap_states or {})
    verdict = judge(graph, head, event, before, source)
    entry = Entry(event, verdict.outcome, received_ts, verdict.reason, before=before, topo=topo)
    entry.after = before if verdict.outcome is Outcome.REJECTED else before.with_event(event)
    link_awaited_redaction(batch, entry)
    if verdict.outcome is Outcome.ACCEPTED:
        link_redaction(batch, entry)
        batch.accept(entry)
    else:
        batch.add(entry)
    return entry


def reject_placeless(batch: Batch, event: Event, received_ts: int, reason: str) -> Entry:
    """Reject an event that can't be given a place."""
    entry = Entry(event, Outcome.REJECTED, received_ts, reason, outlier=True)
    batch.add(entry)
    return entry


def add_outlier(
    batch: Batch, event: Event, received_ts: int, create: Event | None, source: Source
) -> Verdict:
    """Keep an event without its place, judged by its auth events only. Raises MissingAuthEvents."""
    assert source.checks[-1] == "auth_events"  # noqa: S101  (what else it must pass can't be checked here)
    verdict = check_by_auth_events(batch.graph, event, create)
    batch.add(Entry(event, verdict.outcome, received_ts, verdict.reason, outlier=True))
    return verdict


def _before(batch: Batch, event: Event, gap_states: Mapping[str, StateRef]) -> tuple[StateRef, int]:
    """The state before an event, and its place along the DAG."""
    states: list[StateRef] = []
    topos: list[int] = []
    for prev_id in event.prev_events:
        if prev_id in gap_states:
            states.append(gap_states[prev_id])
            continue
        topo, after = state_after(batch, prev_id)
        states.append(after)
        if topo is not None:
            topos.append(topo)
    topo = (max(topos) if topos else batch.head.max_topo()) + 1
    if gap_states:
        newest = max((tip.depth for tip in batch.head.tips.values()), default=0)
        topo += max(0, min(event.depth - newest, MAX_GAP_STEP))
    return batch.graph.resolve(batch.head.version, states), topo


def state_after(batch: Batch, event_id: str) -> tuple[int | None, StateRef]:
    """(topo, state after) of a placed event."""
    placed = batch.placed.get(event_id)
    if placed is not None:
        return placed
    tip = batch.head.tips.get(event_id)
    if tip is not None:
        return tip.topo, tip.after
    stored = batch.graph.stored(event_id)
    assert stored is not None  # noqa: S101  (the caller saw that it is placed)
    if stored.after_group is not None and stored.after_group == batch.head.current.group:
        return stored.topo, batch.head.current
    return stored.topo, StateRef(stored.after_group)


def link_redaction(batch: Batch, entry: Entry) -> None:
    """If the event is a redaction that is allowed, note what it redacts (spec: "Handling redactions" by
    version).
    """
    event = entry.event
    if event.type != "m.room.redaction" or event.redacts is None:
        return
    target = event if event.redacts == event.event_id else batch.graph.event(event.redacts)
    if target is None:
        entry.awaited_redaction_of = event.redacts
    elif may_redact(batch.graph, batch.head, event, target, entry.before):
        entry.redaction_of = target.redacted()


def link_awaited_redaction(batch: Batch, entry: Entry) -> None:
    """A redaction of this event may have come before it."""
    for redaction, before in batch.redactions_before(entry.event.event_id):
        if may_redact(batch.graph, batch.head, redaction, entry.event, before):
            entry.redacted_by = redaction.event_id
            return


def may_redact(graph: Graph, head: Head, redaction: Event, target: Event, before: StateRef | None) -> bool:
    if target.room_id != redaction.room_id or target.type == "m.room.create":
        return False
    return redaction_allowed(redaction, target, head.state(graph, before))
