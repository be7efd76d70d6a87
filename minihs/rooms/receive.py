# SPDX-License-Identifier: Apache-2.0
"""A room takes in what waits for it in the inbox.

Each room's own task works through its staged PDUs in the order they came, many to a commit; those whose
parents have to be asked for come last. A PDU whose parents can't be had is deferred, not refused; one that
makes this code fail is set aside after some tries, and the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial

import structlog
import trio

from minihs.matrix import canonical
from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.admission import Source
from minihs.rooms.batch import Batch
from minihs.rooms.gaps import Defer, Gaps
from minihs.rooms.head import Head, NotInRoom
from minihs.rooms.out_of_band import OutOfBand
from minihs.rooms.parts import Parts
from minihs.rooms.placement import completes, is_settled, missing_prevs
from minihs.rooms.ties import Ties
from minihs.store import inbox, rooms
from minihs.store.byte_cache import ByteCache
from minihs.store.errors import is_of_the_disk
from minihs.store.inbox import Staged

log = structlog.get_logger()

BATCH_SIZE = 50
"""PDUs to a commit."""
MAX_AHEAD = 25
"""PDUs of others that are taken ahead of a server that fills the queue."""
MAX_CRASHES = 5
"""A PDU that made its step fail so often is set aside."""
MAX_SET_ASIDE = 100
"""PDUs set aside that are kept to be looked at."""
DEFER_FIRST_MS, DEFER_MAX_MS = 5_000, 6 * 3600_000
MAX_DEFERRALS = 60
"""With the pauses above, about two weeks."""
MAX_DEFERRED = 500
"""Deferred PDUs of one room; more are given up."""
PARSED_BYTES = 1024 * 1024
"""Of events that were put into the inbox just now and are not read from there again."""
PARSED_FACTOR = 6
"""What an event takes in memory, about, in multiples of its JSON."""
MAX_PAUSE = 60.0
"""Seconds after which the inbox is looked into even if nobody said that there is something in it."""


class Receiver:
    def __init__(self, parts: Parts, gaps: Gaps, out_of_band: OutOfBand) -> None:
        self._parts = parts
        self._gaps = gaps
        self._out_of_band = out_of_band
        self._ties = Ties(parts)
        self.joining: dict[str, str] = {}
        """Rooms that a join is under way for, and their version: their PDUs wait until it is done."""
        self._scheduled: set[str] = set()
        self._parsed: ByteCache[str, Event] = ByteCache(PARSED_BYTES)
        """Events that came just now, whose rows of the inbox need not be read again."""
        self._crashes: dict[int, int] = {}
        self._news = trio.Event()
        parts.db.on_commit(self._see_commit)

    def _see_commit(self, keys: frozenset[str]) -> None:
        for key in keys:
            if key.startswith("inbox:"):
                self.room_has_work(key.removeprefix("inbox:"))

    def room_has_work(self, room_id: str) -> None:
        """Have the room's task look into the inbox."""
        if room_id not in self._scheduled and room_id not in self.joining:
            self._scheduled.add(room_id)
            self._parts.tasks.start(room_id, lambda: self._drain(room_id))

    def have_parsed(self, events: Iterable[Event]) -> None:
        """These are being put into the inbox."""
        for event in events:
            if event.text is None:
                event.text = canonical.dumps(event.json)
            self._parsed.put(event.event_id, event, PARSED_FACTOR * len(event.text))

    def _parse(self, batch: Batch, item: Staged) -> Event:
        known = self._parsed.get(item.event_id)
        if known is not None:
            self._parsed.drop(item.event_id)
            # (It was read as of the version that the room was said to have by then.)
            if known.text == item.json and known.version is batch.head.version:
                return known
        return Event.from_store(canonical.loads(item.json), batch.head.version, item.event_id)

    def look_again(self) -> None:
        """Something may be due: the clock was set, or somebody wants it tried now."""
        self._news.set()

    async def run(self) -> None:
        """Start what waited when the server was last stopped, and deferred PDUs when they are due."""
        while True:
            self._news = trio.Event()
            now, next_due = self._parts.now(), None
            waiting = inbox.rooms_waiting(self._parts.db.read)
            latest = now + 2 * DEFER_MAX_MS
            if any(due > latest for _, due in waiting):  # the clock was set back
                await self._parts.db.write(partial(inbox.hasten_later_than, ms=latest))
                continue
            for room_id, due in waiting:
                if due <= now:
                    self.room_has_work(room_id)
                else:
                    next_due = due if next_due is None else min(next_due, due)
            pause = MAX_PAUSE if next_due is None else (next_due - now) / 1000
            with trio.move_on_after(min(max(pause, 0.05), MAX_PAUSE)):
                await self._news.wait()

    async def _drain(self, room_id: str) -> None:
        self._scheduled.discard(room_id)
        while room_id not in self.joining:
            staged = inbox.next_pdus(self._parts.db.read, room_id, self._parts.now(), BATCH_SIZE)
            if not staged:
                return
            await self._take(room_id, staged + self._ahead(room_id, staged))
            await self._hasten(room_id)

    def follow_up(self, head: Head) -> None:
        """When events were given their places past the inbox: the room's task does what follows from that.
        (No answer may wait for it: our ties are signed by a policy server.) `head`: the room's as it is
        now."""
        waiting = inbox.deferred_pdus(self._parts.db.read, head.room_id, self._parts.now(), 1)
        if waiting or self._ties.are_due(head):
            self._parts.tasks.start(head.room_id, partial(self._follow_up, head.room_id))

    async def _follow_up(self, room_id: str) -> None:
        if await self._hasten(room_id):
            self.room_has_work(room_id)
        await self._ties.tie(self._parts.head(room_id))

    def _just_come(self, batch: Batch, loud: str) -> list[Staged]:
        """What others that are less loud sent just now, and is not in the batch. Not what waits for a parent
        in the queue: that has its turn with it.
        """
        turns, read, room_id = self._parts.turns, self._parts.db.read, batch.head.room_id
        for matter in turns.before(loud, room_id):
            found = inbox.next_pdus_of(
                read, room_id, self._parts.now(), matter.since or 0, matter.account, MAX_AHEAD
            )
            looked_at = {*batch.done, *(seq for seq, _ in batch.deferred)}
            fresh = [item for item in found if item.seq not in looked_at]
            ready = [item for item in fresh if not self._waits_for_another(item, room_id)]
            if ready:
                return ready
            if fresh or not found:
                turns.dealt_with(room_id, [matter.account])
        return []

    def _ahead(self, room_id: str, staged: list[Staged]) -> list[Staged]:
        """If the queue is long, some of those behind, of other servers than the one that sent most. Not those
        whose parents are in the queue as well: their turn comes.
        """
        if len(staged) < BATCH_SIZE:
            return []
        loud, _ = Counter(item.origin for item in staged).most_common(1)[0]
        read, now = self._parts.db.read, self._parts.now()
        found = inbox.next_pdus_of_others(read, room_id, now, staged[-1].seq, loud, MAX_AHEAD)
        return [item for item in found if not self._waits_for_another(item, room_id)]

    def _waits_for_another(self, item: Staged, room_id: str) -> bool:
        room = rooms.get(self._parts.db.read, room_id)
        version = ROOM_VERSIONS.get(room.version or "") if room is not None else None
        if version is None:
            return True
        event = Event.from_store(canonical.loads(item.json), version, item.event_id)
        return any(inbox.is_waiting(self._parts.db.read, prev_id) for prev_id in event.prev_events)

    async def _take(self, room_id: str, staged: list[Staged]) -> None:
        """Deal with these rows of the inbox, all together or, if that fails, one by one."""
        try:
            await self._take_together(room_id, staged)
        except Exception as error:  # the boundary of one PDU: its failure must not stop the others
            if is_of_the_disk(error):
                raise  # that is no PDU's fault: they stay for later
            self._parts.heads.pop(room_id)
            if len(staged) > 1:
                for item in staged:
                    await self._take(room_id, [item])
            else:
                log.error(
                    "a PDU made its step fail", room=room_id, event_id=staged[0].event_id, exc_info=error
                )
                await self._count_crash(staged[0])

    async def _take_together(self, room_id: str, staged: list[Staged]) -> None:
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:
            await self._out_of_band.take(staged)
            self._parts.turns.dealt_with(room_id, {item.origin for item in staged})
            return
        batch = self._parts.batch(self._parts.take_head(room_id))
        batch.look_ahead([item.event_id for item in staged])
        turns = self._parts.turns
        taken: set[str] = set()

        async def take_just_come(loud: str) -> bool:
            """Those shall wait neither for the rest nor for another commit. Whether there are any."""
            # (Not with a single one: if that fails it must be by its own fault.)
            first = self._just_come(batch, loud) if len(staged) > 1 else []
            if not first:
                return False
            taken.update(item.origin for item in first)
            for item in first:
                await self._take_one(batch, item, gaps=False)
            return True

        try:
            with_gaps: list[Staged] = []
            for item in staged:
                taken.add(item.origin)
                if not await self._take_one(batch, item, gaps=False):
                    with_gaps.append(item)
                if await take_just_come(item.origin):
                    break
            else:
                for item in with_gaps:
                    await self._take_one(batch, item, gaps=True)
            await turns.give_way(staged[0].origin, trio.current_time(), room_id)
            await take_just_come(staged[0].origin)
            await batch.commit()
            turns.dealt_with(room_id, taken)
            await self._ties.tie(batch.head)
        except NotInRoom:
            return  # we left while others were asked; what is left here is looked at anew
        except BaseException:
            batch.discard()
            turns.dealt_with(room_id, taken)  # one by one now, in the order they came
            raise

    async def _take_one(self, batch: Batch, item: Staged, *, gaps: bool) -> bool:
        """False: others have to be asked for its parents, which was not wanted."""
        event = self._parse(batch, item)
        if event.event_id in batch.placed or is_settled(batch.graph, event):
            if completes(batch.graph, event):
                batch.completed.append(event)
            batch.done.append(item.seq)
            return True
        missing = missing_prevs(batch, event)
        if missing and not gaps:
            return False
        try:
            await self._gaps.take_new(
                batch, event, item.origin, item.received_ts, Source.TRANSACTION, missing
            )
        except Defer as reason:
            self._defer(batch, item, str(reason))
        else:
            batch.done.append(item.seq)
        return True

    def _defer(self, batch: Batch, item: Staged, reason: str) -> None:
        waiting = inbox.count_deferred(self._parts.db.read, item.room_id, self._parts.now())
        if item.attempts >= MAX_DEFERRALS or waiting + len(batch.deferred) >= MAX_DEFERRED:
            log.info("gave up on a PDU", event_id=item.event_id, room=batch.head.room_id, missing=reason)
            batch.done.append(item.seq)
            return
        pause = min(DEFER_FIRST_MS * 2 ** min(item.attempts, 20), DEFER_MAX_MS)
        pause = int(pause * self._parts.runtime.random.uniform(0.8, 1.2))
        log.info(
            "deferred a PDU", event_id=item.event_id, room=batch.head.room_id, missing=reason, pause_ms=pause
        )
        batch.deferred.append((item.seq, self._parts.now() + pause))
        self.look_again()

    async def _hasten(self, room_id: str) -> bool:
        """Deferred PDUs whose parents have come meanwhile need not wait any longer. (Where they wait for the
        room's members, they are hastened when those have come.) Whether there are such."""
        waiting = inbox.deferred_pdus(self._parts.db.read, room_id, self._parts.now(), MAX_DEFERRED)
        room = rooms.get(self._parts.db.read, room_id) if waiting else None
        if room is None or not room.resident or room.partial:
            return False
        batch = self._parts.batch(self._parts.head(room_id))
        ready: list[int] = []
        for item in waiting:
            if item.seq in self._crashes:
                continue
            event = Event.from_store(canonical.loads(item.json), batch.head.version, item.event_id)
            if not missing_prevs(batch, event) and all(map(batch.graph.has, event.auth_events)):
                ready.append(item.seq)
        if ready:
            await self._parts.db.write(lambda tx: inbox.hasten(tx, ready))
        return bool(ready)

    async def _count_crash(self, item: Staged) -> None:
        count = self._crashes.pop(item.seq, 0) + 1
        if count >= MAX_CRASHES:
            log.error("set a PDU aside", event_id=item.event_id, room=item.room_id, json=item.json[:2000])
            await self._parts.db.write(lambda tx: inbox.set_aside(tx, item.seq, keep=MAX_SET_ASIDE))
        else:
            self._crashes[item.seq] = count
            again = self._parts.now() + DEFER_FIRST_MS * count
            await self._parts.db.write(lambda tx: inbox.defer(tx, item.seq, again))
            self.look_again()
