# SPDX-License-Identifier: Apache-2.0
"""Reporting content (client-server-api, "Reporting Content"): kept, and said in the log.

Reports of rooms and users are taken whether or not there is such a room or user, so that nobody can find out
by them. To report an event one must be in its room and see it.
"""

from __future__ import annotations

import structlog

from minihs.matrix.errors import invalid_param, not_found
from minihs.matrix.ids import is_room_id, is_user_id
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import reports
from minihs.store.database import Database
from minihs.store.reports import Report
from minihs.sync import visibility
from minihs.sync.group_facts import GroupFacts

log = structlog.get_logger(__name__)


class Reports:
    def __init__(self, db: Database, runtime: Runtime, facts: GroupFacts) -> None:
        self._db = db
        self._runtime = runtime
        self._facts = facts

    async def event(self, requester: Requester, room_id: str, event_id: str, reason: str) -> None:
        """M_NOT_FOUND unless the user is in the room and may see the event."""
        _, access = visibility.visible_event(self._db.read, self._facts, requester.user_id, room_id, event_id)
        if not access.joined:
            raise not_found("There is no such event in a room that you are in.")
        await self._add(Report(requester.user_id, room_id, event_id, None, reason, self._now()))

    async def room(self, requester: Requester, room_id: str, reason: str) -> None:
        if not is_room_id(room_id):
            raise invalid_param("That is no room id.")
        await self._add(Report(requester.user_id, room_id, None, None, reason, self._now()))

    async def user(self, requester: Requester, user_id: str, reason: str) -> None:
        if not is_user_id(user_id):
            raise invalid_param("That is no user id.")
        await self._add(Report(requester.user_id, None, None, user_id, reason, self._now()))

    def _now(self) -> int:
        return self._runtime.clock.now_ms()

    async def _add(self, report: Report) -> None:
        await self._db.write(lambda tx: reports.add(tx, report))
        what = {name: value for name, value in report._asdict().items() if value is not None}
        log.warning("a user reports something", **what)
