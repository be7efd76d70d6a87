# SPDX-License-Identifier: Apache-2.0
"""Asking other servers for the event closest to a point of time, and fetching it (spec: server-server-api,
"Retrieving events")."""

from __future__ import annotations

import structlog

from minihs.matrix.federation_errors import FederationError
from minihs.rooms.backfill import Backfill
from minihs.rooms.parts import Parts
from minihs.store import rooms

log = structlog.get_logger()

MAX_SERVERS = 3


class ByTime:
    def __init__(self, parts: Parts, history: Backfill) -> None:
        self._parts = parts
        self._history = history

    async def fetch(self, room_id: str, ts: int, *, forward: bool, closer_than: int | None) -> bool:
        """Ask for an event at or after (or at or before) `ts` that is closer than one at `closer_than`.

        True: there was one, and now it has its place in the room.
        """
        room_nid = rooms.room_nid(self._parts.db.read, room_id)
        hosts = [] if room_nid is None else rooms.hosts(self._parts.db.read, room_nid)
        for host in [host for host in hosts if host != self._parts.our_name][:MAX_SERVERS]:
            try:
                event_id, found = await self._parts.federation.timestamp_to_event(
                    host, room_id, ts, "f" if forward else "b"
                )
            except FederationError as error:
                log.info("asking for an event by time failed", room=room_id, host=host, error=str(error))
                continue
            far = abs(found - ts)
            if (found < ts if forward else found > ts) or (
                closer_than is not None and far >= abs(closer_than - ts)
            ):
                continue
            if await self._history.around(room_id, event_id, host):
                return True
        return False
