# SPDX-License-Identifier: Apache-2.0
"""The reading side of a server under one name: what routes call, and what the federation hands in.

Rooms and sync need each other: rooms ask what other servers may see and hand in their typing and receipts;
sync asks rooms for ACLs and history. So this is made first, given to rooms, and then told of them by
`connect`.
"""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.rooms.turns import Turns
from minihs.rooms.whole import Whole
from minihs.runtime import Runtime
from minihs.store.database import Database
from minihs.sync.by_time import ByTime
from minihs.sync.group_facts import GroupFacts
from minihs.sync.initial_sync import InitialSync
from minihs.sync.messages import Messages
from minihs.sync.notifications import Notifications
from minihs.sync.notifier import Notifier
from minihs.sync.ports import EduQueue, Past, PresenceNews, ServerAcls
from minihs.sync.public_rooms import PublicRooms
from minihs.sync.push_source import PushSource
from minihs.sync.receipts import Receipts
from minihs.sync.relations import Relations
from minihs.sync.reports import Reports
from minihs.sync.room_reads import RoomReads
from minihs.sync.search import Search
from minihs.sync.sliding.syncer import SlidingSyncer
from minihs.sync.syncer import Syncer
from minihs.sync.typing import Typing
from minihs.sync.unread import Unread
from minihs.sync.visibility import HostVisibility


class Sync:
    typing: Typing
    receipts: Receipts
    syncer: Syncer
    sliding: SlidingSyncer
    messages: Messages
    by_time: ByTime
    initial_sync: InitialSync

    def __init__(self, db: Database, runtime: Runtime, our_name: str, turns: Turns | None = None) -> None:
        self._db = db
        self._runtime = runtime
        self._our_name = our_name
        self.notifier = Notifier(turns)
        db.on_commit(self.notifier.wake)
        self.facts = GroupFacts()
        db.on_events(self.facts.bodies.take_over)
        self.visible_to = HostVisibility(self.facts)
        """For `rooms`: which events another server may see."""
        self._whole = Whole(db)
        self.reads = RoomReads(db, runtime, self.facts, self._whole)
        self.relations = Relations(db, runtime, self.facts)
        self.search = Search(db, runtime, self.facts)
        self.reports = Reports(db, runtime, self.facts)
        self.unread = Unread(self.facts)
        self.notifications = Notifications(db, runtime, self.facts, self.unread)
        self.push_source = PushSource(db, our_name, self.unread)
        self.public_rooms = PublicRooms(db)

    def connect(
        self, *, edus: EduQueue, acls: ServerAcls, history: Past, presence: PresenceNews | None = None
    ) -> None:
        """Call once, before the first request is served."""
        db, runtime = self._db, self._runtime
        self.typing = Typing(db.read, runtime, self.notifier, self._our_name, edus=edus, acls=acls)
        self.receipts = Receipts(db, runtime, self._our_name, edus=edus, acls=acls)
        self.syncer = Syncer(db, runtime, self.notifier, self.typing, self.facts, presence, self.unread)
        self.sliding = SlidingSyncer(db, runtime, self.notifier, self.typing, self.facts, self.unread)
        self.messages = Messages(db, runtime, self.facts, history, self._whole)
        self.by_time = ByTime(db, self.facts, history)
        self.initial_sync = InitialSync(db, self.facts, self.reads, self.messages)

    async def receive_typing(self, origin: str, content: JsonObject) -> None:
        """Handler of m.typing EDUs."""
        self.typing.receive_typing(origin, content)

    async def receive_receipts(self, origin: str, content: JsonObject) -> None:
        """Handler of m.receipt EDUs."""
        await self.receipts.receive_receipts(origin, content)
