# SPDX-License-Identifier: Apache-2.0
"""Which rooms an answer of /sync speaks of, and in which of its four sections.

What the user was in a room at `since` and is at `upto` decides:

- joined now: `join`, if there may be news. Joined since (or left and joined again meanwhile): the room whole.
- invited or knocking now, and not so at `since`: `invite` or `knock`.
- left or banned since: `leave`, with events up to the leave only.
- left before: only in an answer without `since`, and only when the filter says `include_leave`.

A room that we joined by partial state (rooms/partial_join.py) is told at once to clients that load members
lazily. Others must get all members with it, so it is kept from them until those are known, and is new then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import NamedTuple

from minihs.store import partial, sync_rooms
from minihs.store.reader import Reader
from minihs.store.sync_rooms import RoomMembership
from minihs.sync import visibility


class Section(StrEnum):
    JOIN = "join"
    INVITE = "invite"
    KNOCK = "knock"
    LEAVE = "leave"


GONE = ("leave", "ban")


class RoomTask(NamedTuple):
    """A room that the answer may speak of."""

    room_nid: int
    room_id: str
    section: Section
    since: int | None
    """What the client knows of the room's events and state; None: nothing."""
    upto: int
    member_nid: int
    """The user's own membership event."""
    was_member: bool = True
    """LEAVE: the user had been joined. Otherwise nothing but their own leave is theirs to see."""
    partial: bool = False
    """Not all of the room's members are known yet."""
    completed: int | None = None
    """As of when they are, if they were not."""

    @property
    def just_completed(self) -> bool:
        """The client knows the room, and not all of its members."""
        return self.completed is not None and self.since is not None and self.completed > self.since


def first_rooms(db: Reader, user_id: str, upto: int, *, include_leave: bool) -> list[RoomTask]:
    """For an answer without `since`."""
    rooms_now = sync_rooms.memberships_at(db, user_id, upto, left=include_leave)
    tasks = [_first(db, user_id, room, upto) for room in rooms_now]
    return _with_what_is_known(tasks, partial.since(db, upto), upto)


def one_room(db: Reader, user_id: str, room: RoomMembership, since: int | None, upto: int) -> RoomTask | None:
    """For a view that tells of rooms one by one, each from where it was left. `room`: as of `upto`; `since`:
    up to where the client knows it, None: it never heard of it. None: there is nothing to tell."""
    task = _one_room(db, user_id, room, since, upto)
    if task is None:
        return None
    (known,) = _with_what_is_known([task], partial.of_room(db, room.room_nid), upto)
    return known


def _one_room(
    db: Reader, user_id: str, room: RoomMembership, since: int | None, upto: int
) -> RoomTask | None:
    if since is None:
        return _first(db, user_id, room, upto)
    spans = sync_rooms.spans(db, user_id, room.room_nid)
    changes = [
        RoomMembership(room.room_nid, room.room_id, span.membership, span.event_nid, span.pos)
        for span in spans
        if since < span.pos <= upto
    ]
    if changes:
        before = [span.membership for span in spans if span.pos <= since]
        task = _changed(db, user_id, changes, before[-1] if before else None, since, upto)
        if task is not None:
            return task
    if room.membership != "join":
        return None
    return RoomTask(room.room_nid, room.room_id, Section.JOIN, since, upto, room.event_nid)


def rooms_with_changes(
    db: Reader, user_id: str, since: int, upto: int, *, also: Collection[str], all_joined: bool
) -> list[RoomTask]:
    """For an answer to `since`. `also`: rooms with other news, such as typing. `all_joined`: full_state."""
    by_room: dict[int, list[RoomMembership]] = {}
    for change in sync_rooms.changes_between(db, user_id, since, upto):
        by_room.setdefault(change.room_nid, []).append(change)

    tasks = []
    moved: set[int] = set()
    for room_nid, changes in by_room.items():
        span = sync_rooms.span_at(db, user_id, room_nid, since)
        before = None if span is None else span.membership
        task = _changed(db, user_id, changes, before, since, upto)
        if task is not None:
            tasks.append(task)
        if task is not None or changes[-1].membership != "join":
            moved.add(room_nid)

    tasks.extend(_unmoved(db, user_id, since, upto, also, moved, all_joined=all_joined))
    return _with_what_is_known(tasks, partial.since(db, since), upto)


def _unmoved(
    db: Reader,
    user_id: str,
    since: int,
    upto: int,
    also: Collection[str],
    moved: set[int],
    *,
    all_joined: bool,
) -> list[RoomTask]:
    """Rooms that the user was joined to all the time."""
    if all_joined:
        found = sync_rooms.memberships_at(db, user_id, upto, left=False)
    else:
        found = sync_rooms.rooms_with_news(db, user_id, since)
        found += sync_rooms.joined_among(db, user_id, set(also) - {room.room_id for room in found})
    return [
        RoomTask(room.room_nid, room.room_id, Section.JOIN, since, upto, room.event_nid)
        for room in found
        if room.membership == "join" and room.room_nid not in moved
    ]


def _first(db: Reader, user_id: str, room: RoomMembership, upto: int) -> RoomTask:
    """A room that the client knows nothing of."""
    if room.membership in GONE:
        return _left(db, user_id, room, None, upto)
    section = Section(room.membership)
    return RoomTask(room.room_nid, room.room_id, section, None, upto, room.event_nid)


def _changed(
    db: Reader, user_id: str, changes: list[RoomMembership], before: str | None, since: int, upto: int
) -> RoomTask | None:
    """A room in which the user's membership was written since. None: it is what it was."""
    last = changes[-1]
    if last.membership == "join":
        if before == "join" and all(change.membership == "join" for change in changes):
            return None  # only the user's profile changed
        return RoomTask(last.room_nid, last.room_id, Section.JOIN, None, upto, last.event_nid)
    if last.membership in GONE:
        passed = {change.membership for change in changes}
        if before in (None, *GONE) and "join" not in passed and last.membership == (before or "leave"):
            return None  # invited and gone again, or banned anew, between two answers
        if before == "join" or "join" in passed:
            return _left(db, user_id, last, since if before == "join" else None, upto)
        return RoomTask(
            last.room_nid, last.room_id, Section.LEAVE, since, upto, last.event_nid, was_member=False
        )
    if last.membership not in ("invite", "knock"):
        return None
    return RoomTask(last.room_nid, last.room_id, Section(last.membership), None, upto, last.event_nid)


def _left(db: Reader, user_id: str, room: RoomMembership, since: int | None, upto: int) -> RoomTask:
    spans = [span for span in sync_rooms.spans(db, user_id, room.room_nid) if span.pos <= upto]
    left = visibility.left_at(spans)
    return RoomTask(
        room.room_nid,
        room.room_id,
        Section.LEAVE,
        since,
        upto if left is None else min(upto, left),
        room.event_nid,
        was_member=left is not None,
    )


def _with_what_is_known(tasks: list[RoomTask], states: Mapping[int, int | None], upto: int) -> list[RoomTask]:
    """The tasks, each with whether all members of its room are known. `states`: as `store.partial` says."""
    if not states:
        return tasks
    found = []
    for task in tasks:
        if task.section is Section.JOIN and task.room_nid in states:
            pos = states[task.room_nid]
            is_partial = pos is None or pos > upto
            task = task._replace(partial=is_partial, completed=None if is_partial else pos)
        found.append(task)
    return found


def for_clients_that_want_all_members(tasks: list[RoomTask]) -> list[RoomTask]:
    """Without rooms of which not all are known; what has become whole is new to them."""
    return [task._replace(since=None) if task.just_completed else task for task in tasks if not task.partial]
