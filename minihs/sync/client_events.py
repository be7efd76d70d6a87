# SPDX-License-Identifier: Apache-2.0
"""Events in the form that clients get (client-server-api, "Room event format").

Out of a PDU only what the format names is taken: clients never see hashes, signatures, auth_events and the
like. `unsigned` is made here: `age`, `transaction_id` for the device that sent the event, `redacted_because`,
and for timeline events `prev_content`, `replaces_state`, the reader's own `membership` at the event and what
relates to the event (`aggregations`).

Events are made in batches: whatever their number, there is one query for each kind of thing they need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.store import ids, state, timeline
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.sync import visibility
from minihs.sync.aggregations import add_aggregations
from minihs.sync.group_facts import GroupFacts

REDACTION = "m.room.redaction"


class Viewer(NamedTuple):
    """Who reads. `device_id` empty: nobody's transaction ids are shown."""

    user_id: str
    device_id: str = ""


def client_events(
    db: Reader,
    facts: GroupFacts,
    rows: Iterable[EventRow],
    *,
    viewer: Viewer,
    now_ms: int,
    room_ids: Mapping[int, str] | None,
    timeline_nids: frozenset[int] | set[int] | None = None,
    summed_nids: frozenset[int] | set[int] | None = None,
) -> dict[int, JsonObject]:
    """nid → client event. `room_ids` (room_nid → room id) where the format has `room_id`; None: /sync, it is
    implied.

    `timeline_nids`: those that get prev_content, replaces_state and membership; None: all. What is only there
    as state does without: these cost a look into the state before each event.
    `summed_nids`: those that get m.relations; None: all of the timeline.
    """
    by_nid = {row.nid: row for row in rows}
    bodies = facts.bodies.get(db, by_nid.values())
    redactions = _redactions(db, by_nid, now_ms)
    txn_ids = _txn_ids(db, by_nid, viewer)
    full = [row for row in by_nid.values() if timeline_nids is None or row.nid in timeline_nids]
    previous = _previous_state(db, facts, full, viewer.user_id)
    memberships = _memberships(db, facts, full, viewer.user_id)

    events: dict[int, JsonObject] = {}
    for nid, row in by_nid.items():
        if nid not in bodies:
            continue
        event_id, pdu = bodies[nid]
        unsigned: JsonObject = {"age": now_ms - row.ts}
        if nid in txn_ids:
            unsigned["transaction_id"] = txn_ids[nid]
        if row.redacted_by is not None:
            unsigned["redacted_because"] = redactions.get(row.redacted_by, {})
        if nid in previous:
            replaced_id, replaced_content = previous[nid]
            unsigned["replaces_state"] = replaced_id
            if replaced_content is not None:
                unsigned["prev_content"] = replaced_content
        if nid in memberships:
            unsigned["membership"] = memberships[nid]
        events[nid] = client_event(
            event_id, pdu, unsigned, room_id=None if room_ids is None else room_ids[row.room_nid]
        )

    def make(rows: Iterable[EventRow]) -> dict[int, JsonObject]:
        return client_events(
            db, facts, rows, viewer=viewer, now_ms=now_ms, room_ids=room_ids, summed_nids=frozenset()
        )

    summed = full if summed_nids is None else [row for row in full if row.nid in summed_nids]
    add_aggregations(db, facts, summed, events, user_id=viewer.user_id, make=make)
    return events


def client_event(event_id: str, pdu: JsonObject, unsigned: JsonObject, *, room_id: str | None) -> JsonObject:
    """One event, from its PDU and its `unsigned`."""
    content = pdu["content"]
    event: JsonObject = {
        "type": pdu["type"],
        "sender": pdu["sender"],
        "content": content,
        "event_id": event_id,
        "origin_server_ts": pdu["origin_server_ts"],
        "unsigned": unsigned,
    }
    if "state_key" in pdu:
        event["state_key"] = pdu["state_key"]
    if room_id is not None:
        event["room_id"] = room_id
    if pdu["type"] == REDACTION:
        # Room versions 1 to 10 keep `redacts` at the top, later ones in the content; clients get both.
        redacts = content.get("redacts", pdu.get("redacts")) if isinstance(content, dict) else None
        if isinstance(redacts, str):
            event["redacts"] = redacts
            event["content"] = {**content, "redacts": redacts}
    return event


def federation_event(event_id: str, pdu: JsonObject, unsigned: JsonObject) -> JsonObject:
    """The raw event, for a filter that asks for `event_format: federation`."""
    return {**pdu, "event_id": event_id, "unsigned": unsigned}


def stripped(pdu: JsonObject) -> JsonObject:
    """A stripped state event: nothing but the four properties that the format has."""
    return {name: pdu[name] for name in ("type", "state_key", "sender", "content")}


def _redactions(db: Reader, rows: Mapping[int, EventRow], now_ms: int) -> dict[int, JsonObject]:
    """nid of each redaction that is in force on one of the events → its client event."""
    nids = {row.redacted_by for row in rows.values() if row.redacted_by is not None}
    if not nids:
        return {}
    found = timeline.rows_of(db, nids)
    return {
        nid: client_event(event_id, pdu, {"age": now_ms - found[nid].ts}, room_id=None)
        for nid, (event_id, pdu) in timeline.bodies(db, nids).items()
        if nid in found
    }


def _txn_ids(db: Reader, rows: Mapping[int, EventRow], viewer: Viewer) -> dict[int, str]:
    own = [nid for nid, row in rows.items() if row.sender == viewer.user_id]
    return timeline.txn_ids(db, own, viewer.user_id, viewer.device_id) if own and viewer.device_id else {}


def _previous_state(
    db: Reader, facts: GroupFacts, rows: Iterable[EventRow], user_id: str
) -> dict[int, tuple[str, JsonObject | None]]:
    """nid → (id of the state event that this one replaced, its content if the user may see it)."""
    replaced = _replaced(db, rows)
    if not replaced:
        return {}
    nids = set(replaced.values())
    earlier = timeline.rows_of(db, nids)
    by_room: dict[int, list[EventRow]] = {}
    for row in earlier.values():
        by_room.setdefault(row.room_nid, []).append(row)
    allowed: set[int] = set()
    for same_room in by_room.values():
        allowed |= _may_see(db, facts, user_id, same_room)
    contents = timeline.bodies(db, nids & allowed)
    event_ids = ids.event_ids(db, nids)
    return {
        nid: (event_ids[before], contents[before][1].get("content") if before in contents else None)
        for nid, before in replaced.items()
    }


def _replaced(db: Reader, rows: Iterable[EventRow]) -> dict[int, int]:
    """nid of each state event that replaced another → that other.

    Where each event stands upon the one before it (most of a timeline), only the state before the first is
    looked into, once for all keys.
    """
    replaced: dict[int, int] = {}
    at: int | None = None
    start: int | None = None
    set_since: dict[int, int] = {}
    wanted: dict[int, int] = {}

    def look_up() -> None:
        before = state.lookup(db, start, wanted) if start is not None and wanted else {}
        replaced.update((wanted[key], event) for key, event in before.items() if event != wanted[key])

    for row in sorted(rows, key=lambda row: (row.room_nid, row.topo or 0, row.arrival or 0)):
        if row.before_group is None:
            continue
        if row.before_group != at:
            look_up()
            start, set_since, wanted = row.before_group, {}, {}
        at = row.after_group
        if row.key_nid is None:
            continue
        if row.key_nid in set_since:
            replaced[row.nid] = set_since[row.key_nid]
        else:
            wanted[row.key_nid] = row.nid
        if row.outcome == 0:
            set_since[row.key_nid] = row.nid
    look_up()
    return replaced


def _may_see(db: Reader, facts: GroupFacts, user_id: str, rows: list[EventRow]) -> set[int]:
    """State that came with a join is an outlier: its past is not known, but it was the state the user joined
    to."""
    outliers = {row.nid for row in rows if row.before_group is None}
    return visibility.visible(db, facts, user_id, [row for row in rows if row.nid not in outliers]) | outliers


def _memberships(db: Reader, facts: GroupFacts, rows: list[EventRow], user_id: str) -> dict[int, str]:
    """nid → what the user was at the event, including what the event itself changed."""
    with_state = [row for row in rows if row.after_group is not None]
    if not with_state:
        return {}
    groups = facts.memberships(db, facts.key(db, "m.room.member", user_id), with_state)
    return {row.nid: groups[row.after_group] or "leave" for row in with_state if row.after_group is not None}
