# SPDX-License-Identifier: Apache-2.0
"""Whose devices a client must ask for anew, and whose it can forget (client-server-api, "Tracking the device
list for a user")."""

from __future__ import annotations

from collections.abc import Mapping

from minihs.store import device_lists, state, sync_rooms, timeline
from minihs.store.reader import Reader
from minihs.sync.group_facts import GroupFacts
from minihs.sync.room_list import RoomTask, Section, rooms_with_changes
from minihs.sync.room_state import MEMBER, Change, changes_since, state_at_end


def through_room(
    db: Reader, facts: GroupFacts, task: RoomTask, changes: Mapping[int, Change], end: int | None
) -> tuple[set[str], set[str]]:
    """With whom the client now shares, and with whom it no longer shares, an encrypted room through this
    one."""
    if task.section is Section.JOIN and task.since is not None and not changes and not task.just_completed:
        return set(), set()
    key = facts.key(db, "m.room.encryption", "")
    if key is None or end is None or not state.lookup(db, end, (key,)):
        return set(), set()
    if task.section is Section.LEAVE:
        return set(), _joined_in(db, facts, end)
    if task.since is None or task.just_completed or key in changes:
        return set(sync_rooms.joined_users(db, task.room_nid)), set()
    return _compare_members(db, facts, changes)


def through_all_rooms(
    db: Reader, facts: GroupFacts, user_id: str, since: int, upto: int
) -> tuple[set[str], set[str]]:
    """The same over all the user's rooms that changed in since < pos ≤ upto."""
    joined: set[str] = set()
    left: set[str] = set()
    for task in rooms_with_changes(db, user_id, since, upto, also=(), all_joined=False):
        if task.section not in (Section.JOIN, Section.LEAVE) or not task.was_member:
            continue
        end = state_at_end(db, task)
        here = through_room(db, facts, task, changes_since(db, task, end), end)
        joined |= here[0]
        left |= here[1]
    return joined, left


def changed_and_left(
    db: Reader, user_id: str, since: int, upto: int, joined: set[str], left: set[str]
) -> tuple[list[str], list[str]]:
    """`device_lists` of an answer. `joined`, `left`: with whom encrypted rooms are now, or no longer,
    shared."""
    changed = set(device_lists.changed_among_contacts(db, user_id, since, upto)) | (joined - {user_id})
    gone = left - {user_id}
    if gone:
        gone -= sync_rooms.sharing_encrypted_room(db, user_id, gone)
    return sorted(changed - gone), sorted(gone)


def _compare_members(
    db: Reader, facts: GroupFacts, changes: Mapping[int, Change]
) -> tuple[set[str], set[str]]:
    joined: set[str] = set()
    left: set[str] = set()
    keys = facts.member_keys(db, changes.keys())
    if not keys:
        return joined, left
    users = timeline.state_keys_of_type(db, keys, MEMBER)
    nids = {nid for key in keys for nid in (changes[key].before, changes[key].after) if nid is not None}
    rows = timeline.rows_of(db, nids)

    def is_joined(nid: int | None) -> bool:
        return nid in rows and rows[nid].membership == "join"

    for key in keys:
        was, now = is_joined(changes[key].before), is_joined(changes[key].after)
        if now and not was:
            joined.add(users[key])
        elif was and not now:
            left.add(users[key])
    return joined, left


def _joined_in(db: Reader, facts: GroupFacts, group: int) -> set[str]:
    """Users joined in some state; for rooms whose unfolded state we no longer hold."""
    whole = state.read_group(db, group)
    keys = facts.member_keys(db, whole)
    users = timeline.state_keys_of_type(db, keys, MEMBER)
    rows = timeline.rows_of(db, [whole[key] for key in keys])
    return {users[key] for key in keys if whole[key] in rows and rows[whole[key]].membership == "join"}
