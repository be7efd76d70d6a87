# SPDX-License-Identifier: Apache-2.0
"""A room takes in what waits for it in the inbox.

Each room's own task works through its staged PDUs in the order they came, many to a commit. A PDU whose
parents can't be had is deferred, not refused; one that makes this code fail is set aside after some tries,
and the others go on.
"""

from __future__ import annotations

import structlog
import trio

from minihs.matrix import canonical
from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.admission import Source
from minihs.rooms.batch import Batch
from minihs.rooms.gaps import Defer, Gaps
from minihs.rooms.head import Head
from minihs.rooms.out_of_band import OutOfBand
from minihs.rooms.parts import Parts
from minihs.rooms.placement import is_settled, missing_prevs
from minihs.store import inbox, rooms
from minihs.store.inbox import Staged

log = structlog.get_logger()

BATCH_SIZE = 100
"""PDUs to a commit."""
MAX_CRASHES = 5
"""A PDU that made its step fail so often is set aside."""
DEFER_FIRST_MS, DEFER_MAX_MS = 5_000, 6 * 3600_000
MAX_DEFERRALS = 60
"""With the pauses above, about two weeks."""


class Receiver:
    def __init__(self, parts: Parts, gaps: Gaps, out_of_band: OutOfBand) -> None:
        self._parts = parts
        self._gaps = gaps
        self._out_of_band = out_of_band
        self.joining: set[str] = set()
        """Rooms that a join is under way for: their PDUs wait until it is done."""
        self._scheduled: set[str] = set()
        self._crashes: dict[int, int] = {}
        self._news = trio.Event()

    def room_has_work(self, room_id: str) -> None:
        """Have the room's task look into the inbox."""
        if room_id not in self._scheduled and room_id not in self.joining:
            self._scheduled.add(room_id)
            self._parts.tasks.start(room_id, lambda: self._drain(room_id))

    async def run(self) -> None:
        """Start what waited when the server was last stopped, and deferred PDUs when they are due."""
        while True:
            self._news = trio.Event()
            now, next_due = self._parts.now(), None
            for room_id, due in inbox.rooms_waiting(self._parts.db.read):
                if due <= now:
                    self.room_has_work(room_id)
                else:
                    next_due = due if next_due is None else min(next_due, due)
            pause = 3600.0 if next_due is None else max(0.05, (next_due - now) / 1000)
            with trio.move_on_after(pause):
                await self._news.wait()

    async def _drain(self, room_id: str) -> None:
        self._scheduled.discard(room_id)
        while room_id not in self.joining:
            staged = inbox.next_pdus(self._parts.db.read, room_id, self._parts.now(), BATCH_SIZE)
            if not staged:
                return
            room = rooms.get(self._parts.db.read, room_id)
            if room is None or not room.resident:
                await self._out_of_band.take(staged)
            else:
                await self._take(self._parts.take_head(room_id), staged)
            if any(item.attempts for item in staged):
                self._news.set()

    async def _take(self, head: Head, staged: list[Staged]) -> None:
        batch = self._parts.batch(head)
        for item in staged:
            try:
                await self._take_one(batch, item)
            except Defer as reason:
                self._defer(batch, item, str(reason))
            except Exception as error:  # the boundary of one PDU: its failure must not stop the others
                log.error("a PDU made its step fail", room=head.room_id, event=item.event_id, exc_info=error)
                self._parts.graph.drop_pending([entry.event.event_id for entry in batch.entries])
                self._count_crash(batch, item)
                batch.entries.clear()
                batch.placed.clear()
                await batch.commit()
                self._parts.heads.pop(head.room_id)  # it may be half changed: the next round reads it anew
                return
        await batch.commit()

    async def _take_one(self, batch: Batch, item: Staged) -> None:
        event = Event.from_store(
            canonical.loads(item.json), ROOM_VERSIONS[batch.head.version.version], item.event_id
        )
        if not is_settled(batch.graph, event.event_id) and event.event_id not in batch.placed:
            if missing_prevs(batch, event):
                await self._gaps.fill(batch, event, item.origin, item.received_ts)
            else:
                await self._gaps.place(batch, event, item.origin, item.received_ts, Source.TRANSACTION)
        batch.done.append(item.seq)

    def _defer(self, batch: Batch, item: Staged, reason: str) -> None:
        if item.attempts >= MAX_DEFERRALS:
            log.info("gave up on a PDU", event=item.event_id, room=batch.head.room_id, missing=reason)
            batch.done.append(item.seq)
            return
        pause = min(DEFER_FIRST_MS * 2 ** min(item.attempts, 20), DEFER_MAX_MS)
        pause = int(pause * self._parts.runtime.random.uniform(0.8, 1.2))
        log.info(
            "deferred a PDU", event=item.event_id, room=batch.head.room_id, missing=reason, pause_ms=pause
        )
        batch.deferred.append((item.seq, self._parts.now() + pause))
        self._news.set()

    def _count_crash(self, batch: Batch, item: Staged) -> None:
        count = self._crashes.get(item.seq, 0) + 1
        if count >= MAX_CRASHES:
            self._crashes.pop(item.seq, None)
            batch.done.append(item.seq)
            log.error("set a PDU aside", event=item.event_id, room=batch.head.room_id, json=item.json[:2000])
        else:
            self._crashes[item.seq] = count
            batch.deferred.append((item.seq, self._parts.now() + DEFER_FIRST_MS))
            self._news.set()
