# SPDX-License-Identifier: Apache-2.0
"""GET /timestamp_to_event: the event closest to a point of time (client-server-api, "Getting events for a
room").

Where history is missing right next to what we found, another server may know of something closer: it is
asked, and what it names is fetched and given its place, so that the client can go on from there.
"""

from __future__ import annotations

import trio

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import not_found
from minihs.requester import Requester
from minihs.store import account_data, history, timeline
from minihs.store.database import Database
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.sync import visibility
from minihs.sync.filters import ALL
from minihs.sync.group_facts import GroupFacts
from minihs.sync.messages import BACKFILL_TIMEOUT, FIRST, place_of
from minihs.sync.ports import PastByTime
from minihs.sync.selection import Selector
from minihs.sync.visibility import Access

FIRST_LOOK, MAX_LOOK = 20, 500
"""Events next to the time that are looked at, to find one that the reader may see: first few, then more."""


class ByTime:
    def __init__(self, db: Database, facts: GroupFacts, past: PastByTime) -> None:
        self._db = db
        self._facts = facts
        self._past = past

    async def closest(self, requester: Requester, room_id: str, ts: int, *, forward: bool) -> JsonObject:
        """At or after, or at or before `ts`. M_NOT_FOUND: there is none that the user may see."""
        access = visibility.access(self._db.read, self._facts, requester.user_id, room_id)
        found, next_to_gap = await self._db.scan(lambda db: self._look(db, requester, access, ts, forward))
        if next_to_gap and access.joined:
            closer_than = None if found is None else found.ts
            got = False
            with trio.move_on_after(BACKFILL_TIMEOUT):
                got = await self._past.fetch_at(room_id, ts, forward=forward, closer_than=closer_than)
            if got:
                found, _ = await self._db.scan(lambda db: self._look(db, requester, access, ts, forward))
        if found is None:
            raise not_found(f"There is no event {'after' if forward else 'before'} that time.")
        event_id, _ = timeline.bodies(self._db.read, [found.nid])[found.nid]
        return {"event_id": event_id, "origin_server_ts": found.ts}

    def _look(
        self, db: Reader, requester: Requester, access: Access, ts: int, forward: bool
    ) -> tuple[EventRow | None, bool]:
        """The closest event that we have, and whether history is missing between it and the time."""
        found = self._closest(db, requester, access, ts, forward)
        gaps = timeline.gaps(db, access.room_nid)
        if not gaps:
            return found, False
        if forward:
            return found, found is not None and found.nid in gaps
        # What follows the event in the room names a parent that we lack: it lies in between.
        after = FIRST if found is None else place_of(found)
        following = timeline.page_forward(db, access.room_nid, *after, 1)
        return found, any(row.nid in gaps for row in following)

    def _closest(
        self, db: Reader, requester: Requester, access: Access, ts: int, forward: bool
    ) -> EventRow | None:
        ignored = account_data.ignored_users(db, requester.user_id) - {requester.user_id}
        select = Selector(db, self._facts, requester.user_id, ALL, ignored)
        for limit in (FIRST_LOOK, MAX_LOOK):
            nids = history.nearest(db, access.room_nid, ts, forwards=forward, limit=limit)
            rows = timeline.rows_of(db, nids)
            shown = select.pick([rows[nid] for nid in nids])
            if shown:
                return shown[0]
            if len(nids) < limit:
                return None
        return None
