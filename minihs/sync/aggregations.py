# SPDX-License-Identifier: Apache-2.0
"""What relates to an event, summed up in its `unsigned` as `m.relations` (client-server-api, "Aggregations of
child events"): the latest edit, the thread, references.

For a whole batch of events at once: one query for their children, one look at who may see those. Children
that the reader may not see, or that ignored users sent, do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from minihs.matrix.canonical import JsonObject
from minihs.matrix.relations import REFERENCE, REPLACE, THREAD
from minihs.store import account_data, ids, relations, timeline
from minihs.store.reader import Reader
from minihs.store.relations import Child
from minihs.store.timeline import EventRow
from minihs.sync import visibility
from minihs.sync.group_facts import GroupFacts

MAX_REFERENCES = 200
"""Events named in one `m.reference`: the latest."""

type Make = Callable[[Collection[EventRow]], dict[int, JsonObject]]
"""Rows → nid → client event, without its own m.relations."""


@dataclass(slots=True)
class _Found:
    """What relates to one event and counts."""

    edits: list[EventRow] = field(default_factory=list)
    references: list[EventRow] = field(default_factory=list)
    replies: list[EventRow] = field(default_factory=list)
    """Those in its thread, the latest first."""
    uncounted: int = 0
    """Replies that were not looked at: there are too many."""


def add_aggregations(
    db: Reader,
    facts: GroupFacts,
    rows: Iterable[EventRow],
    events: Mapping[int, JsonObject],
    *,
    user_id: str,
    make: Make,
    threads: bool = True,
) -> None:
    """Put `m.relations` into those of `events` (made of `rows`) that have something to sum up."""
    parents = {row.nid: row for row in rows if row.key_nid is None and row.nid in events}
    found = _children(db, facts, parents, user_id, threads=threads) if parents else {}
    if not found:
        return
    edits = {nid: _latest_edit(db, each.edits) for nid, each in found.items() if each.edits}
    latest = {nid: each.replies[0] for nid, each in found.items() if each.replies}
    made = make([*edits.values(), *latest.values()]) if edits or latest else {}
    if latest:
        add_aggregations(db, facts, latest.values(), made, user_id=user_id, make=make, threads=False)
    took_part = _threads_of(db, found, parents, user_id)
    for nid, each in found.items():
        summed: JsonObject = {}
        if nid in edits and edits[nid].nid in made:
            summed[REPLACE] = made[edits[nid].nid]
        if nid in latest and latest[nid].nid in made:
            summed[THREAD] = {
                "latest_event": made[latest[nid].nid],
                "count": len(each.replies) + each.uncounted,
                "current_user_participated": nid in took_part,
            }
        if each.references:
            names = ids.event_ids(db, [row.nid for row in each.references])
            chunk = [{"event_id": names[row.nid]} for row in reversed(each.references)]
            summed[REFERENCE] = {"chunk": chunk}
        if summed:
            events[nid]["unsigned"]["m.relations"] = summed


def _children(
    db: Reader, facts: GroupFacts, parents: Mapping[int, EventRow], user_id: str, *, threads: bool
) -> dict[int, _Found]:
    children = relations.bundled(db, parents, threads=threads)
    if not children:
        return {}
    rows = timeline.rows_of(db, {child.nid for child in children})
    seen = _seen(db, facts, user_id, rows.values())
    edited = {child.parent_nid for child in children if child.rel_type == REPLACE}
    are_edits = relations.rel_types_of(db, edited) if edited else {}
    found: dict[int, _Found] = {}
    for child in children:
        row, parent = rows.get(child.nid), parents[child.parent_nid]
        each = found.setdefault(parent.nid, _Found())
        if child.rel_type == THREAD:
            each.uncounted = max(0, child.total - relations.MAX_BUNDLED)
        if row is None or row.nid not in seen or row.room_nid != parent.room_nid:
            continue
        if child.rel_type == THREAD:
            each.replies.append(row)
        elif child.rel_type == REFERENCE:
            if len(each.references) < MAX_REFERENCES:
                each.references.append(row)
        elif is_edit(child, row, parent) and are_edits.get(parent.nid) != REPLACE:
            each.edits.append(row)
    return {nid: each for nid, each in found.items() if each.edits or each.references or each.replies}


def is_edit(child: Child, row: EventRow, parent: EventRow) -> bool:
    """Is the replacement valid (client-server-api, "Validity of replacement events")? That the parent is no
    replacement itself is for the caller to see."""
    return (
        child.whole
        and parent.redacted_by is None
        and row.sender == parent.sender
        and row.type == parent.type
        and row.key_nid is None
    )


def _latest_edit(db: Reader, edits: list[EventRow]) -> EventRow:
    """By the time that it claims, and of those at the same time the one with the largest id."""
    newest = max(row.ts for row in edits)
    edits = [row for row in edits if row.ts == newest]
    if len(edits) == 1:
        return edits[0]
    names = ids.event_ids(db, [row.nid for row in edits])
    return max(edits, key=lambda row: names[row.nid])


def _threads_of(
    db: Reader, found: Mapping[int, _Found], parents: Mapping[int, EventRow], user_id: str
) -> set[int]:
    """Those of the threads that the user began, or said something in."""
    roots = {nid for nid, each in found.items() if each.replies}
    own = {nid for nid in roots if parents[nid].sender == user_id}
    others = roots - own
    return own | (relations.threads_with(db, others, user_id) if others else set())


def _seen(db: Reader, facts: GroupFacts, user_id: str, rows: Iterable[EventRow]) -> set[int]:
    """Those of the children that the reader may see and wants to."""
    ignored = account_data.ignored_users(db, user_id) - {user_id}
    by_room: dict[int, list[EventRow]] = {}
    for row in rows:
        if row.sender not in ignored:
            by_room.setdefault(row.room_nid, []).append(row)
    seen: set[int] = set()
    for same_room in by_room.values():
        seen |= visibility.visible(db, facts, user_id, same_room)
    return seen
