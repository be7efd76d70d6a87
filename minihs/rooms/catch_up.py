# SPDX-License-Identifier: Apache-2.0
"""After a time in which we were down: what was said meanwhile is asked for, room by room.

Other servers send what they kept for us once they see us (`federation.senders` greets them), some only the
newest event of each room, some after long pauses only. So we ask as well: for the newest event of the rooms
that were busy last. What is new is taken in as if it had been sent to us, and the gap before it with it.
"""

from __future__ import annotations

import structlog
import trio

from minihs.matrix.errors import MatrixError
from minihs.matrix.federation_errors import FederationError
from minihs.rooms.parts import Parts
from minihs.rooms.transactions import Transactions
from minihs.store import rooms, uptime

log = structlog.get_logger()

SHORT_ABSENCE_MS = 5 * 60_000
"""After a shorter one nobody has given us up yet."""
FIRST_WAIT = 20.0
"""Seconds in which the others may send by themselves."""
MAX_ROOMS = 200
PAUSE = 1.0
"""Seconds between two rooms."""
MAX_ASKED = 3
AHEAD_MS = 3600_000
"""Clocks differ."""


class CatchUp:
    def __init__(self, parts: Parts, transactions: Transactions) -> None:
        self._parts = parts
        self._transactions = transactions

    async def run(self) -> None:
        """Once, after the start."""
        last = uptime.last_sign_of_life(self._parts.db.read)
        if last is None or self._parts.now() - last < SHORT_ABSENCE_MS:
            return
        await trio.sleep(FIRST_WAIT)
        for room_id in await self._parts.db.scan(lambda db: uptime.active_rooms(db, MAX_ROOMS)):
            await self._look(room_id)
            await trio.sleep(PAUSE)

    async def _look(self, room_id: str) -> None:
        """Ask for the room's newest event, and have it taken in if we lack it."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:
            return
        others = [
            host for host in rooms.hosts(self._parts.db.read, room.room_nid) if host != self._parts.our_name
        ]
        federation = self._parts.federation
        for host in others[:MAX_ASKED]:
            try:
                event_id, _ = await federation.timestamp_to_event(
                    host, room_id, self._parts.now() + AHEAD_MS, "b"
                )
                if not self._parts.graph.has(event_id):
                    pdu = await federation.get_event(host, event_id)
                    await self._transactions.take_fetched(host, [pdu])
                    log.info("caught up with a room", room=room_id, host=host, event_id=event_id)
            except (FederationError, MatrixError) as error:
                log.info("could not ask what is new in a room", room=room_id, host=host, error=str(error))
            else:
                return
