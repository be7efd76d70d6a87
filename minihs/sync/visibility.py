# SPDX-License-Identifier: Apache-2.0
"""Who may see which event: every path that hands out events asks here (client-server-api, "Room History
Visibility").

An event is judged by the state *at* it:

1. `world_readable`: anybody may see it.
2. The user was joined: they may.
3. `shared`, and the user joined at any time after it (or is joined now): they may.
4. `invited`, and the user was invited: they may.
5. Otherwise they may not.

A history visibility event is judged by the more generous of the states before and after it. A user's own
membership events are always theirs to see. Whoever left or was banned sees nothing that *arrived* afterwards,
whatever fork of the DAG it belongs to, unless it is world readable.

Events of which we don't hold the state (outliers) are nobody's to see, but for the user's own membership.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from minihs.matrix.errors import MatrixError, forbidden, not_found
from minihs.store import rooms, sync_rooms, timeline
from minihs.store.reader import Reader
from minihs.store.sync_rooms import Span
from minihs.store.timeline import NEWEST, EventRow
from minihs.sync.group_facts import DEFAULT_VISIBILITY, VISIBILITY, GroupFacts

_FEW_STATES = 8
"""With more, it is cheaper to look at the events one by one, each with the state that the one before left."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a user may read a room."""

    room_nid: int
    room_id: str
    version: str | None
    joined: bool
    upto: int
    """Nothing that arrived later: NEWEST while joined, else when the user left."""
    peeking: bool = False
    """Never a member: reads only because the room is world readable."""


def access(db: Reader, facts: GroupFacts, user_id: str, room_id: str) -> Access:
    """The user's access to a room as a reader; M_FORBIDDEN if there is none.

    A room that does not exist is refused like one that is not theirs, so that rooms can't be probed for.
    """
    room = rooms.get(db, room_id)
    if room is not None:
        spans = sync_rooms.spans(db, user_id, room.room_nid)
        if spans and spans[-1].membership == "join":
            return Access(room.room_nid, room_id, room.version, True, NEWEST)
        if room.resident and room.state_group is not None:
            visibility = facts.visibility_of(db, room.state_group)
        else:
            visibility = ""
        left = left_at(spans)
        if left is not None and not sync_rooms.is_forgotten(db, user_id, room.room_nid):
            return Access(room.room_nid, room_id, room.version, False, left)
        if visibility == "world_readable":
            return Access(room.room_nid, room_id, room.version, False, NEWEST, peeking=True)
    raise not_in_room()


def access_to_events(db: Reader, user_id: str, room_id: str) -> Access | None:
    """For reading single events, each of which is judged by itself: any room that the user did not forget."""
    room = rooms.get(db, room_id)
    if room is None or sync_rooms.is_forgotten(db, user_id, room.room_nid):
        return None
    spans = sync_rooms.spans(db, user_id, room.room_nid)
    joined = bool(spans) and spans[-1].membership == "join"
    left = left_at(spans)
    upto = NEWEST if joined or left is None else left
    return Access(room.room_nid, room_id, room.version, joined, upto, peeking=not joined and left is None)


def visible_event(
    db: Reader, facts: GroupFacts, user_id: str, room_id: str, event_id: str
) -> tuple[EventRow, Access]:
    """One event of a room, for a user who may see it; M_NOT_FOUND for anybody else, as if there were none."""
    missing = not_found("There is no such event, or you may not see it.")
    room_nid = rooms.room_nid(db, room_id)
    row = None if room_nid is None else timeline.by_event_id(db, room_nid, event_id)
    if row is None or row.outcome != 0:
        raise missing
    found = access_to_events(db, user_id, room_id)
    if found is None or not visible(db, facts, user_id, [row]):
        raise missing
    return row, found


def not_in_room() -> MatrixError:
    return forbidden("You are not in this room and never were, or you have forgotten it.")


def left_at(spans: Sequence[Span]) -> int | None:
    """When the user's last stay in the room ended; None: there was none, or it goes on."""
    for earlier, later in zip(reversed(spans[:-1]), reversed(spans[1:])):
        if later.membership == "join":
            return None
        if earlier.membership == "join":
            return later.pos
    return None


def visible(db: Reader, facts: GroupFacts, user_id: str, rows: Sequence[EventRow]) -> set[int]:
    """The nids of those events (all of one room) that the user may see."""
    if not rows:
        return set()
    own_key = facts.key(db, "m.room.member", user_id)
    spans = sync_rooms.spans(db, user_id, rows[0].room_nid)
    is_joined = bool(spans) and spans[-1].membership == "join"
    left = left_at(spans)
    last_stay = NEWEST if is_joined else left
    cut_off = NEWEST if is_joined else (left if left is not None else -NEWEST)

    memberships = facts.memberships(db, own_key, rows)
    visibilities = facts.visibilities(db, rows)
    seen = set()
    for row in rows:
        if own_key is not None and row.key_nid == own_key:
            seen.add(row.nid)
            continue
        if is_outlier(row):
            continue
        at_event = _visibilities_at(row, visibilities)
        was = memberships.get(row.before_group or 0)
        arrival = NEWEST if row.arrival is None else row.arrival
        if "world_readable" in at_event:
            seen.add(row.nid)
        elif arrival > cut_off:
            continue
        elif (
            was == "join"
            or ("shared" in at_event and last_stay is not None and arrival <= last_stay)
            or ("invited" in at_event and was == "invite")
        ):
            seen.add(row.nid)
    return seen


def is_outlier(row: EventRow) -> bool:
    """Do we lack the state at the event? (The first event of a room has a place, and nothing before it.)"""
    return row.before_group is None and row.topo is None


def _visibilities_at(row: EventRow, visibilities: Mapping[int, str]) -> set[str]:
    """What counts as the history visibility at an event: group numbers start at 1, so 0 is the empty
    state."""
    at_event = {visibilities.get(row.before_group or 0, DEFAULT_VISIBILITY)}
    if row.type == VISIBILITY and row.after_group is not None:
        at_event.add(visibilities[row.after_group])
    return at_event


def visible_to_host(db: Reader, facts: GroupFacts, host: str, rows: Sequence[EventRow]) -> set[int]:
    """The nids of those events (all of one room) that some user of another server could see.

    Whether the server may ask about the room at all (it is resident, its ACL allows it) is its caller's
    question.
    """
    if not rows:
        return set()
    room_nid = rows[0].room_nid
    visibilities = facts.visibilities(db, rows)
    is_resident = rooms.has_host(db, room_nid, host)
    seen: set[int] = set()
    unsure: list[EventRow] = []
    for row in rows:
        if is_outlier(row):
            continue
        at_event = _visibilities_at(row, visibilities)
        if "world_readable" in at_event or ("shared" in at_event and is_resident):
            seen.add(row.nid)
        else:
            unsure.append(row)
    if unsure:
        users = sync_rooms.users_of_host(db, room_nid, host)
        seen |= _seen_as_member(db, facts, users, unsure, visibilities)
    return seen


class HostVisibility:
    """What `rooms` asks before it shows events to another server: which of these events of one room may one
    of its users see?"""

    def __init__(self, facts: GroupFacts) -> None:
        self._facts = facts

    def __call__(self, db: Reader, host: str, nids: Sequence[int]) -> set[int]:
        if self._are_open(db, host, nids):
            return set(nids)
        return visible_to_host(db, self._facts, host, list(timeline.rows_of(db, nids).values()))

    def _are_open(self, db: Reader, host: str, nids: Sequence[int]) -> bool:
        """Whether the server may see all of them, as few states tell: so it is with most pages of history.
        False says nothing."""
        states = timeline.states_before(db, nids)
        if not 0 < len(states) <= _FEW_STATES:
            return False
        (room_nid, *_), *_ = states
        enough = {"world_readable", "shared"} if rooms.has_host(db, room_nid, host) else {"world_readable"}
        return all(
            (group is not None or has_place)
            and (DEFAULT_VISIBILITY if group is None else self._facts.visibility_of(db, group)) in enough
            for _, group, has_place in states
        )


def _seen_as_member(
    db: Reader,
    facts: GroupFacts,
    users: Collection[str],
    rows: Sequence[EventRow],
    visibilities: dict[int, str],
) -> set[int]:
    """Those events at which one of the users was a member, as the visibility at the event demands."""
    seen: set[int] = set()
    left = list(rows)
    for key_nid in timeline.member_keys(db, users).values():
        memberships = facts.memberships(db, key_nid, left)
        for row in left:
            was = {memberships.get(row.before_group or 0)}
            if row.key_nid == key_nid and row.after_group is not None:
                was.add(memberships[row.after_group])
            if "join" in was or ("invite" in was and "invited" in _visibilities_at(row, visibilities)):
                seen.add(row.nid)
        left = [row for row in left if row.nid not in seen]
        if not left:
            break
    return seen
