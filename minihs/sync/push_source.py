# SPDX-License-Identifier: Apache-2.0
"""What is there to be pushed to a user, and how much they have not read: for the pushers (`minihs.push`).

Of each user with a pusher the unread notifications are kept, room by room, and brought up to date when a
commit concerns the room. Invites are looked up when asked for; those of strangers, with whom the user shares
no room, are shown by /sync but not pushed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import trio

from minihs.matrix.canonical import JsonObject
from minihs.matrix.ids import domain_of
from minihs.matrix.push_conditions import PushContext
from minihs.push.ports import News
from minihs.store import account_data, ids, notifications, state, sync_rooms, timeline
from minihs.store.database import Database
from minihs.store.notifications import Invite
from minihs.store.reader import Reader
from minihs.store.timeline import NEWEST
from minihs.sync.client_events import client_event
from minihs.sync.stripped import invites_blocked, stripped_state
from minihs.sync.unread import Notifying, Unread


@dataclass(slots=True)
class _User:
    """What is known of one user."""

    rooms: dict[str, tuple[int, list[Notifying]]] = field(default_factory=dict)
    """room id → its number, and what is unread there."""
    looked_at: int = 0
    stale: set[str] = field(default_factory=set)
    """Rooms with news."""
    all_stale: bool = True
    """Rules, ignored users or the rooms themselves may have changed."""
    lock: trio.Lock = field(default_factory=trio.Lock)


class PushSource:
    """Mutable state: `_users`, touched on the loop only. What a thread works out is put in there on the
    loop."""

    def __init__(self, db: Database, our_name: str, unread: Unread) -> None:
        self._db = db
        self._our_name = our_name
        self._unread = unread
        self._users: dict[str, _User] = {}

    def concerned(self, keys: Collection[str], users: Collection[str]) -> set[str]:
        """See `push.ports.Unread`."""
        found: set[str] = set()
        for key in keys:
            kind, _, name = key.partition(":")
            if kind == "user" and name in users:
                found.add(name)
                if name in self._users:
                    self._users[name].all_stale = True
            elif kind == "room":
                for user_id in notifications.members_among(self._db.read, name, users):
                    found.add(user_id)
                    if user_id in self._users:
                        self._users[user_id].stale.add(name)
        return found

    async def next_after(self, user_id: str, pos: int) -> tuple[News | None, int]:
        user = await self._up_to_date(user_id)
        db = self._db.read
        found: tuple[int, str, int, Notifying] | None = None
        for room_id, (room_nid, items) in user.rooms.items():
            item = next((item for item in items if item.arrival > pos), None)
            if item is not None and (found is None or item.arrival < found[0]):
                found = (item.arrival, room_id, room_nid, item)
        for invite in notifications.open_invites(db, user_id, pos):
            if found is not None and found[0] < invite.pos:
                break
            news = self._invite(db, user_id, invite)
            if news is not None:
                return news, news.pos
        if found is None:
            return None, user.looked_at
        news = self._news(db, *found)
        return (news, news.pos) if news is not None else await self.next_after(user_id, found[0])

    async def count(self, user_id: str) -> int:
        user = await self._up_to_date(user_id)
        return sum(len(items) for _, items in user.rooms.values())

    def forget(self, user_id: str) -> None:
        self._users.pop(user_id, None)

    # -- keeping up --------------------------------------------------------------------------------

    async def _up_to_date(self, user_id: str) -> _User:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = _User()
        async with user.lock:
            if user.all_stale:
                user.all_stale, user.stale = False, set()
                user.looked_at, user.rooms = await self._db.scan(lambda db: self._all(db, user_id))
            elif user.stale:
                await trio.lowlevel.checkpoint()
                stale, user.stale = user.stale, set()
                self._some(user_id, user, stale)
        return user

    def _all(self, db: Reader, user_id: str) -> tuple[int, dict[str, tuple[int, list[Notifying]]]]:
        upto = sync_rooms.current_pos(db)
        ignored = account_data.ignored_users(db, user_id) - {user_id}
        found = {}
        for room in sync_rooms.memberships_at(db, user_id, upto, left=False):
            if room.membership == "join":
                items = self._unread.notifying(db, user_id, room.room_nid, room.room_id, upto, ignored)
                found[room.room_id] = (room.room_nid, items)
        return upto, found

    def _some(self, user_id: str, user: _User, room_ids: Collection[str]) -> None:
        db = self._db.read
        upto = sync_rooms.current_pos(db)
        ignored = account_data.ignored_users(db, user_id) - {user_id}
        for room_id in room_ids:
            if room_id not in user.rooms:
                continue  # a join comes with a commit about the user as well
            room_nid = user.rooms[room_id][0]
            items = self._unread.notifying(db, user_id, room_nid, room_id, upto, ignored)
            user.rooms[room_id] = (room_nid, items)
        user.looked_at = max(user.looked_at, upto)

    # -- what is told of an event ------------------------------------------------------------------

    def _news(self, db: Reader, pos: int, room_id: str, room_nid: int, item: Notifying) -> News | None:
        bodies = timeline.bodies(db, [item.nid])
        if item.nid not in bodies:
            return None  # purged meanwhile
        event_id, pdu = bodies[item.nid]
        sender = pdu["sender"]
        group = timeline.state_at_pos(db, room_nid, NEWEST)
        wanted = {"name": ("m.room.name", ""), "alias": ("m.room.canonical_alias", "")}
        wanted["sender"] = ("m.room.member", sender)
        keys = {name: key for name, each in wanted.items() if (key := ids.key_nid(db, *each)) is not None}
        nids = {} if group is None else state.lookup(db, group, keys.values())
        contents = {nid: pdu["content"] for nid, (_, pdu) in timeline.bodies(db, set(nids.values())).items()}

        def text(name: str, prop: str) -> str | None:
            return _text(contents.get(nids.get(keys.get(name, 0), 0), {}), prop)

        sender_name, alias = text("sender", "displayname"), text("alias", "alias")
        name = text("name", "name") or alias
        if name is None and sync_rooms.joined_count(db, room_nid) == 2:
            name = sender_name
        received = notifications.received(db, [item.nid]).get(item.nid, 0)
        event = client_event(event_id, pdu, {}, room_id=room_id)
        return News(pos, received, event, item.outcome.tweaks, name, alias, sender_name)

    def _invite(self, db: Reader, user_id: str, invite: Invite) -> News | None:
        """None: it is not to be pushed."""
        bodies = timeline.bodies(db, [invite.event_nid])
        if invite.event_nid not in bodies or invites_blocked(db, user_id):
            return None
        event_id, pdu = bodies[invite.event_nid]
        sender = pdu["sender"]
        if sender in account_data.ignored_users(db, user_id) or not self._is_known(db, user_id, sender):
            return None
        event = client_event(event_id, pdu, {}, room_id=invite.room_id)
        members = sync_rooms.joined_count(db, invite.room_nid)
        outcome = self._unread.rules(db, user_id).evaluate(event, PushContext(members, 0))
        if outcome is None or not outcome.notify:
            return None
        shown = stripped_state(db, invite.room_nid, user_id, invite.event_nid)
        contents = {(each["type"], each["state_key"]): each["content"] for each in shown}
        alias = _text(contents.get(("m.room.canonical_alias", ""), {}), "alias")
        name = _text(contents.get(("m.room.name", ""), {}), "name") or alias
        sender_name = _text(contents.get(("m.room.member", sender), {}), "displayname")
        received = notifications.received(db, [invite.event_nid]).get(invite.event_nid, 0)
        return News(invite.pos, received, event, outcome.tweaks, name, alias, sender_name)

    def _is_known(self, db: Reader, user_id: str, sender: str) -> bool:
        """Our own users, and those with whom the user shares a room, are no strangers."""
        return domain_of(sender) == self._our_name or notifications.share_a_room(db, user_id, sender)


def _text(content: JsonObject, name: str) -> str | None:
    value = content.get(name)
    return value if isinstance(value, str) and value else None
