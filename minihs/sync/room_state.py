# SPDX-License-Identifier: Apache-2.0
"""The state that goes with a timeline in /sync (client-server-api, "Syncing").

A client applies `state`, then the state events of the timeline; it must end up with the room's state at the
end of the timeline. A DAG has forks and state resolution, so the state before the first event shown is not
"that event's state before" (which may be one branch only), and events in between may have been filtered out
or lost a resolution. So it is computed key by key between the room's *current* states, by position:

- keys that no timeline event sets: their value at the end (all of them, or those that differ from `since`);
- keys that the timeline sets: their value at its start, if the client does not have that already.

What this can't undo is a state event in the timeline that lost a resolution at once; `state_after` exists for
that: there, simply all keys have their value at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from minihs.store import state, timeline
from minihs.store.cited import cited_members
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.sync.context import RoomPart, SyncContext
from minihs.sync.room_list import RoomTask

MEMBER = "m.room.member"


@dataclass(frozen=True, slots=True)
class Change:
    """How one state key differs between what the client knew and the end of the timeline."""

    before: int | None
    after: int | None


@dataclass(slots=True)
class RoomState:
    """key_nid → event_nid to send, and what it says about the room."""

    send: dict[int, int]
    changes: dict[int, Change]
    """Of a room that the client knew. Empty: it didn't, or nothing changed."""
    end: int | None
    """The state group at the end."""
    whole: bool
    """The client gets the whole state."""


def room_state(context: SyncContext, part: RoomPart) -> RoomState:
    db, task = context.db, part.task
    found = timeline.state_and_its_pos(db, task.room_nid, task.upto)
    if found is None:
        return RoomState({}, {}, None, whole=False)
    end, end_pos = found
    if task.since is None:
        known = None
    else:
        known = end if end_pos <= task.since else timeline.state_at_pos(db, task.room_nid, task.since)
    changes = changes_between(db, known, end)
    whole = known is None or context.request.full_state
    if whole:
        send = state.read_group(db, end)
    else:
        send = {key: change.after for key, change in changes.items() if change.after is not None}
    if not context.request.use_state_after:
        _step_back(db, part, known if not whole else None, send)
    return RoomState(send, changes, end, whole)


def state_at_end(db: Reader, task: RoomTask) -> int | None:
    """The state group up to which the answer tells of the room; None: we hold no state of it."""
    return timeline.state_at_pos(db, task.room_nid, task.upto)


def changes_since(db: Reader, task: RoomTask, end: int | None) -> dict[int, Change]:
    """What changed of the state that the client knew; nothing, if it knew none."""
    if end is None or task.since is None:
        return {}
    return changes_between(db, timeline.state_at_pos(db, task.room_nid, task.since), end)


def changes_between(db: Reader, known: int | None, end: int) -> dict[int, Change]:
    if known is None:
        return {}
    return {key: Change(*pair) for key, pair in state.diff(db, known, end).items()}


def lazily(context: SyncContext, part: RoomPart, found: RoomState, heroes: Collection[str]) -> dict[int, int]:
    """Of `found.send` what a client that lazy-loads members is sent.

    Members that changed are all sent (they may have changed in a gap). Of the whole state, only members who
    matter for this answer. Members who matter and did not change are added, unless the client was sent them
    before. Where not all members are known, the senders' are taken from what they cite.
    """
    db, room_nid = context.db, part.task.room_nid
    relevant = {row.sender for row in part.timeline} | set(heroes)
    if found.whole:
        relevant.add(context.user_id)
    wanted = set(timeline.member_keys(db, relevant).values())
    if found.whole:
        members = context.facts.member_keys(db, found.send)
        send = {
            key: nid
            for key, nid in found.send.items()
            if key not in members or key in wanted or key in found.changes
        }
    else:
        send = found.send
        members = context.facts.member_keys(db, send)
    missing = [key for key in wanted if key not in send]
    at = found.end if context.request.use_state_after else _state_at_start(db, part)
    if missing and at is not None:
        repeat = found.whole or context.request.filter.state.include_redundant_members
        for key, nid in state.lookup(db, at, missing).items():
            if repeat or not context.members.has(room_nid, key, nid):
                send[key] = nid
    if part.task.partial:
        for key, nid in unknown_senders(db, part.timeline, at).items():
            if key not in send and not context.members.has(room_nid, key, nid):
                send[key] = nid
    for key, nid in send.items():
        if key in members or key in wanted:
            context.members.add(room_nid, key, nid)
    for row in part.timeline:
        if row.key_nid is not None and row.type == MEMBER:
            context.members.add(room_nid, row.key_nid, row.nid)
    return send


def unknown_senders(db: Reader, rows: Sequence[EventRow], group: int | None) -> dict[int, int]:
    """The memberships of those senders that the state does not know, as they cite them: key_nid →
    event_nid."""
    shown = {row.nid for row in rows}
    cited = {key: nid for key, nid in cited_members(db, rows).items() if nid not in shown}
    known = state.lookup(db, group, cited) if group is not None and cited else {}
    return {key: nid for key, nid in cited.items() if key not in known}


def _step_back(db: Reader, part: RoomPart, known: int | None, send: dict[int, int]) -> None:
    """Give the keys that the timeline sets the value from before the timeline."""
    keys = {row.key_nid for row in part.timeline if row.key_nid is not None}
    if not keys:
        return
    start = _state_at_start(db, part)
    before = {} if start is None else state.lookup(db, start, keys)
    has = {} if known is None else state.lookup(db, known, keys)
    for key in keys:
        send.pop(key, None)
        if key in before and before[key] != has.get(key):
            send[key] = before[key]


def _state_at_start(db: Reader, part: RoomPart) -> int | None:
    """The room's state just before the first event shown."""
    if not part.timeline:
        return state_at_end(db, part.task)
    first = part.timeline[0]
    return timeline.state_at_pos(db, part.task.room_nid, (first.arrival or 0) - 1) or first.before_group


def fits_filter(context: SyncContext, part: RoomPart, rows: Sequence[EventRow]) -> list[EventRow]:
    """Those state events that the client's filter lets through."""
    wanted = context.request.filter.state
    if not wanted.allows_room(part.task.room_id):
        return []
    if wanted.passes_all:
        return list(rows)
    rows = [row for row in rows if wanted.allows(row.type, row.sender)]
    if wanted.contains_url is None or not rows:
        return list(rows)
    bodies = timeline.bodies(context.db, [row.nid for row in rows])
    return [
        row
        for row in rows
        if row.nid in bodies and wanted.allows_content(bodies[row.nid][1].get("content") or {})
    ]
