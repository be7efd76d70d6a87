# SPDX-License-Identifier: Apache-2.0
"""GET /notifications: what a user has been, or would have been, notified about (client-server-api, "Listing
notifications").

Worked out from the events of the user's rooms when asked for, the newest first, by the push rules as they are
now; nothing is stored for it. `from` is the position after which a page goes on.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import invalid_param
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import account_data, sync_rooms, timeline
from minihs.store import notifications as store
from minihs.store.database import Database
from minihs.store.reader import Reader
from minihs.store.sync_rooms import RoomMembership
from minihs.store.timeline import NEWEST, EventRow
from minihs.sync.client_events import Viewer, client_events
from minihs.sync.group_facts import GroupFacts
from minihs.sync.unread import Judged, Unread, joined_pos

MAX_NOTIFICATIONS = 100
"""On one page."""

MAX_LOOKED_AT = 5000
"""Events that one request judges; if that does not fill the page, the next goes on from there."""

CHUNK = 50
"""Events of one room that are read in one go."""

_TOKEN = re.compile(r"[0-9]{1,18}", re.ASCII)


class Notifications:
    def __init__(self, db: Database, runtime: Runtime, facts: GroupFacts, unread: Unread) -> None:
        self._db = db
        self._runtime = runtime
        self._facts = facts
        self._unread = unread

    async def page(
        self, requester: Requester, *, limit: int, start: str | None, highlights_only: bool
    ) -> JsonObject:
        if start is not None and not _TOKEN.fullmatch(start):
            raise invalid_param("The token is malformed.")
        before = NEWEST if start is None else int(start)
        return await self._db.scan(lambda db: self._page(db, requester, limit, before, highlights_only))

    def _page(
        self, db: Reader, requester: Requester, limit: int, before: int, highlights_only: bool
    ) -> JsonObject:
        found: list[tuple[RoomMembership, Judged]] = []
        next_token = None
        looked_at = self._newest_first(db, requester.user_id, before)
        for number, (room, judged, arrival) in enumerate(looked_at, 1):
            outcome = None if judged is None else judged.outcome
            is_wanted = outcome is not None and outcome.notify and (outcome.highlight or not highlights_only)
            if judged is not None and is_wanted:
                found.append((room, judged))
            if len(found) == limit or number == MAX_LOOKED_AT:
                next_token = str(arrival)
                break
        answer: JsonObject = {"notifications": self._entries(db, requester, found)}
        if next_token is not None:
            answer["next_token"] = next_token
        return answer

    def _newest_first(
        self, db: Reader, user_id: str, before: int
    ) -> Iterator[tuple[RoomMembership, Judged | None, int]]:
        """(room, what the rules say if the event is shown, its arrival) of the events of all joined rooms."""
        ignored = account_data.ignored_users(db, user_id) - {user_id}
        joined = [
            room
            for room in sync_rooms.memberships_at(db, user_id, NEWEST, left=False)
            if room.membership == "join"
        ]
        streams = [self._of_room(db, user_id, room, before, ignored) for room in joined]
        return heapq.merge(*streams, key=lambda each: -each[2])

    def _of_room(
        self, db: Reader, user_id: str, room: RoomMembership, before: int, ignored: frozenset[str]
    ) -> Iterator[tuple[RoomMembership, Judged | None, int]]:
        joined, upto = joined_pos(db, user_id, room.room_nid), before - 1
        while rows := timeline.latest(db, room.room_nid, joined, upto, CHUNK):
            judged = {
                each.row.nid: each
                for each in self._unread.judge(db, user_id, room.room_nid, room.room_id, rows, ignored)
            }
            for row in rows:
                yield room, judged.get(row.nid), _arrival(row)
            upto = _arrival(rows[-1]) - 1

    def _entries(
        self, db: Reader, requester: Requester, found: list[tuple[RoomMembership, Judged]]
    ) -> list[JsonObject]:
        rows = [judged.row for _, judged in found]
        received = store.received(db, [row.nid for row in rows])
        events = client_events(
            db,
            self._facts,
            rows,
            viewer=Viewer(requester.user_id, requester.device_id),
            now_ms=self._runtime.clock.now_ms(),
            room_ids=None,
        )
        unread = self._unread_in(db, requester.user_id, {room.room_nid: room.room_id for room, _ in found})
        return [
            {
                "room_id": room.room_id,
                "event": events[judged.row.nid],
                "actions": ["notify", *_tweaks(judged)],
                "read": judged.row.nid not in unread,
                "ts": received[judged.row.nid],
            }
            for room, judged in found
            if judged.row.nid in events
        ]

    def _unread_in(self, db: Reader, user_id: str, rooms: dict[int, str]) -> set[int]:
        upto = sync_rooms.current_pos(db)
        ignored = account_data.ignored_users(db, user_id) - {user_id}
        return {
            item.nid
            for room_nid, room_id in rooms.items()
            for item in self._unread.notifying(db, user_id, room_nid, room_id, upto, ignored)
        }


def _tweaks(judged: Judged) -> list[JsonObject]:
    tweaks = {} if judged.outcome is None else judged.outcome.tweaks
    return [{"set_tweak": name, "value": value} for name, value in tweaks.items()]


def _arrival(row: EventRow) -> int:
    return row.arrival or 0
