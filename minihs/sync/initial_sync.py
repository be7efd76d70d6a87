# SPDX-License-Identifier: Apache-2.0
"""GET /rooms/{roomId}/initialSync: a room at a glance, for those who look in without joining
(client-server-api, "Room Previews")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.requester import Requester
from minihs.store import account_data, memberships, rooms, sync_rooms
from minihs.store.database import Database
from minihs.sync import visibility
from minihs.sync.filters import ALL
from minihs.sync.group_facts import GroupFacts
from minihs.sync.messages import Messages, PageOptions
from minihs.sync.room_reads import RoomReads
from minihs.sync.tokens import SyncToken

MAX_MESSAGES = 100


class InitialSync:
    def __init__(self, db: Database, facts: GroupFacts, reads: RoomReads, messages: Messages) -> None:
        self._db = db
        self._facts = facts
        self._reads = reads
        self._messages = messages

    async def room(self, requester: Requester, room_id: str, limit: int) -> JsonObject:
        """M_FORBIDDEN: the room is not theirs to read."""
        db, user_id = self._db.read, requester.user_id
        access = visibility.access(db, self._facts, user_id, room_id)
        end = str(SyncToken(min(sync_rooms.current_pos(db), access.upto)))
        page = await self._messages.page(
            requester, room_id, PageOptions(forward=False, limit=limit, filter=ALL, start=end)
        )
        messages: JsonObject = {"chunk": page["chunk"][::-1], "end": end}
        if "end" in page:
            messages["start"] = page["end"]
        room = rooms.get(db, room_id)
        answer: JsonObject = {
            "room_id": room_id,
            "messages": messages,
            "state": await self._reads.state(requester, room_id),
            "visibility": "public" if room is not None and room.published else "private",
            "account_data": [
                {"type": item.type, "content": item.content}
                for item in account_data.of_room(db, user_id, room_id)
            ],
        }
        held = memberships.get(db, access.room_nid, user_id)
        if held is not None:
            answer["membership"] = held.membership
        return answer
