# SPDX-License-Identifier: Apache-2.0
"""GET /messages: a room's history page by page (client-server-api, "Getting events for a room").

Pages go by place, (topo, arrival), so that history fetched later lies where it belongs. Where an event that
is reached names a parent that we lack, other servers are asked for it first; if nobody answers, the page goes
on without, and the next request tries again. Going forward, which happens after a jump into the past, they
are asked from the far end of what is missing: if that is more than one request should fetch, the page ends
before it, and the next goes on asking.

A page on which nothing is to be shown goes on to the next, a few times; after that an empty chunk with an
`end` tells the client to ask on. At `to` an empty chunk has no `end`, or who pages until there is none would
never be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from minihs.matrix.canonical import JsonObject
from minihs.requester import Requester
from minihs.rooms.whole import Whole
from minihs.runtime import Runtime
from minihs.store import account_data, state, timeline
from minihs.store.database import Database
from minihs.store.reader import Reader
from minihs.store.timeline import NEWEST, EventRow
from minihs.sync import visibility
from minihs.sync.client_events import Viewer, client_events
from minihs.sync.filters import EventFilter
from minihs.sync.group_facts import GroupFacts
from minihs.sync.ports import History
from minihs.sync.room_state import unknown_senders
from minihs.sync.selection import MAX_ROUND, MAX_ROUNDS, Selector
from minihs.sync.tokens import Place, SyncToken, parse_place
from minihs.sync.visibility import Access

MAX_PAGE = 500

MAX_BACKFILLS = 2
"""Rounds of asking other servers, for one page."""

BACKFILL_TIMEOUT = 20.0
"""Seconds that a page waits for them; what comes later is there for the next."""

BACKFILL_AT_LEAST = 50

FIRST, LAST = Place(-NEWEST, -NEWEST), Place(NEWEST, NEWEST)


@dataclass(frozen=True, slots=True)
class PageOptions:
    """The parameters of one request, checked."""

    forward: bool
    limit: int
    filter: EventFilter
    start: str | None = None
    """`from`"""
    stop: str | None = None
    """`to`"""


@dataclass(slots=True)
class _Page:
    rows: list[EventRow]
    end: Place
    more: bool


class Messages:
    def __init__(
        self, db: Database, runtime: Runtime, facts: GroupFacts, history: History, whole: Whole | None = None
    ) -> None:
        self._db = db
        self._whole = whole or Whole(db)
        self._runtime = runtime
        self._facts = facts
        self._history = history

    async def page(self, requester: Requester, room_id: str, options: PageOptions) -> JsonObject:
        """The answer. M_FORBIDDEN: the room is not theirs to read; M_INVALID_PARAM: a malformed token."""
        db, user_id = self._db.read, requester.user_id
        access = visibility.access(db, self._facts, user_id, room_id)
        start = self._start(db, access, options)
        stop = LAST if options.forward else FIRST
        if options.stop is not None:
            stop = cut(db, access, parse_place(options.stop), forward=options.forward, is_stop=True)
        ignored = account_data.ignored_users(db, user_id) - {user_id}
        select = Selector(db, self._facts, user_id, options.filter, ignored)
        if not options.filter.allows_room(room_id):
            page = _Page([], start, more=False)
        elif options.forward:
            page = await self._forward(access, select, start, stop, options.limit)
        else:
            page = await self._back(access, select, start, stop, options.limit)
        answer: JsonObject = {
            "start": options.start if options.start is not None else str(start),
            "chunk": self._events(requester, access, page.rows),
        }
        if options.filter.lazy_load_members and page.rows:
            answer["state"] = self._members(requester, access, page.rows)
        if page.more:
            answer["end"] = str(page.end)
        return answer

    async def _back(self, access: Access, select: Selector, start: Place, stop: Place, limit: int) -> _Page:
        db, room_nid = select.db, access.room_nid
        found: list[EventRow] = []
        place, want = start, limit + 1
        tries = MAX_BACKFILLS if access.joined else 0
        for _ in range(MAX_ROUNDS):
            rows, gap = _read_back(db, room_nid, place, want)
            if gap is not None and gap > stop and access.joined and not await self._is_whole(access, rows):
                inside = [row for row in rows if place_of(row) > stop]
                place = take(select, inside, found, limit, place, forward=False)
                return _Page(found, place, more=True)
            while gap is not None and gap > stop and tries > 0:
                tries -= 1
                if await self._fetch(access.room_id, gap, max(limit, BACKFILL_AT_LEAST)):
                    rows, gap = _read_back(db, room_nid, place, want)
            inside = [row for row in rows if place_of(row) > stop]
            place = take(select, inside, found, limit, place, forward=False)
            if len(found) == limit:
                return _Page(found, place, more=_is_more_before(db, room_nid, place))
            if len(inside) < len(rows):
                return _Page(found, stop, more=bool(found))
            if len(rows) < want:
                return _Page(found, place, more=bool(found) and gap is not None)
            want = min(2 * want + 20, MAX_ROUND)
        return _Page(found, place, more=True)

    async def _forward(
        self, access: Access, select: Selector, start: Place, stop: Place, limit: int
    ) -> _Page:
        await trio.lowlevel.checkpoint()
        db, room_nid = select.db, access.room_nid
        found: list[EventRow] = []
        place, want = start, limit + 1
        tries, asks = MAX_BACKFILLS, access.joined
        for _ in range(MAX_ROUNDS):
            rows = timeline.page_forward(db, room_nid, *place, want)
            gap = _gap_ahead(db, room_nid, place, rows) if asks else None
            ahead = rows if gap is None else [row for row in rows if place_of(row) < gap]
            inside = [row for row in ahead if place_of(row) <= stop]
            place = take(select, inside, found, limit, place, forward=True)
            if len(found) == limit:
                return _Page(found, place, more=bool(timeline.page_forward(db, room_nid, *place, 1)))
            if gap is not None and gap <= stop:
                if not tries or not await self._is_whole(access, found):
                    return _Page(found, place, more=True)
                tries -= 1
                asks = await self._fetch(access.room_id, gap, max(limit, BACKFILL_AT_LEAST))
                continue
            if len(inside) < len(rows):
                return _Page(found, stop, more=bool(found))
            if len(rows) < want:
                return _Page(found, place, more=False)
            want = min(2 * want + 20, MAX_ROUND)
        return _Page(found, place, more=True)

    async def _is_whole(self, access: Access, rows: Sequence[EventRow]) -> bool:
        """History can't be asked for before all members of the room are known. Without anything to give we
        wait for them (MatrixError if that takes too long: no events would mean that there are none)."""
        if rows and self._whole.is_partial(access.room_id):
            return False
        await self._whole.wait(access.room_id)
        return True

    async def _fetch(self, room_id: str, before: Place, limit: int) -> bool:
        with trio.move_on_after(BACKFILL_TIMEOUT):
            return await self._history.backfill(room_id, before=before, limit=limit)
        return False

    def _start(self, db: Reader, access: Access, options: PageOptions) -> Place:
        if options.start is not None:
            token = parse_place(options.start)
            return cut(db, access, token, forward=options.forward, is_stop=False)
        if options.forward:
            return FIRST
        return Place(*(timeline.place_at_pos(db, access.room_nid, access.upto) or FIRST))

    def _events(self, requester: Requester, access: Access, rows: Sequence[EventRow]) -> list[JsonObject]:
        events = client_events(
            self._db.read,
            self._facts,
            rows,
            viewer=Viewer(requester.user_id, requester.device_id),
            now_ms=self._runtime.clock.now_ms(),
            room_ids={access.room_nid: access.room_id},
        )
        return [events[row.nid] for row in rows if row.nid in events]

    def _members(self, requester: Requester, access: Access, rows: Sequence[EventRow]) -> list[JsonObject]:
        """The membership events of the senders, as of the first event of the chunk."""
        db, group = self._db.read, rows[0].after_group
        if group is None:
            return []
        keys = timeline.member_keys(db, {row.sender for row in rows}).values()
        nids = set(state.lookup(db, group, keys).values())
        if self._whole.is_partial(access.room_id):
            nids |= set(unknown_senders(db, rows[::-1], group).values())
        members = timeline.rows_of(db, nids)
        events = client_events(
            db,
            self._facts,
            members.values(),
            viewer=Viewer(requester.user_id),
            now_ms=self._runtime.clock.now_ms(),
            room_ids={access.room_nid: access.room_id},
            timeline_nids=set(),
        )
        return list(events.values())


def cuts(db: Reader, room_nid: int, pos: int) -> tuple[Place, Place]:
    """The two cuts that a position of the stream stands for among places.

    What had arrived by then ends at one place, what arrived later begins at another. Mostly they are the
    same; but what arrives late may belong far back (then they overlap), and history may be missing between
    them, or may have been fetched since. The lower of the two loses nothing later, the upper one nothing
    earlier.
    """
    upto = Place(*(timeline.place_at_pos(db, room_nid, pos) or FIRST))
    first = timeline.place_before_pos(db, room_nid, pos)
    after = LAST if first is None else Place(*first).before()
    return min(upto, after), max(upto, after)


def cut(db: Reader, access: Access, token: Place | SyncToken, *, forward: bool, is_stop: bool) -> Place:
    """Where a page starts or stops for a token: on the side that loses nothing."""
    if isinstance(token, Place):
        return token
    lower, upper = cuts(db, access.room_nid, min(token.pos, access.upto))
    return lower if forward != is_stop else upper


def place_of(row: EventRow) -> Place:
    return Place(row.topo or 0, row.arrival or 0)


def take(
    select: Selector,
    rows: Sequence[EventRow],
    found: list[EventRow],
    limit: int,
    place: Place,
    *,
    forward: bool,
) -> Place:
    """Add what is shown of `rows` to `found`, up to the limit. Returns the cut behind the last one looked
    at."""
    shown = {row.nid for row in select.pick(rows)}
    for row in rows:
        place = place_of(row) if forward else place_of(row).before()
        if row.nid in shown:
            found.append(row)
            if len(found) == limit:
                break
    return place


def _read_back(db: Reader, room_nid: int, place: Place, want: int) -> tuple[list[EventRow], Place | None]:
    """Up to `want` events at and before a place, and where history is missing among them."""
    rows = timeline.page_back(db, room_nid, *place, want)
    return rows, _gap(db, room_nid, place, rows, is_last=len(rows) < want)


def _gap(db: Reader, room_nid: int, place: Place, rows: Sequence[EventRow], *, is_last: bool) -> Place | None:
    """Where history is missing among these rows, or right above them: the latest event there that names a
    parent which we lack."""
    above = timeline.page_forward(db, room_nid, *place, 1)
    highest = place_of(above[0]) if above else place
    lowest = FIRST if is_last or not rows else Place(rows[-1].topo or 0, (rows[-1].arrival or 0) + 1)
    found = timeline.gap_between(db, room_nid, lowest, highest)
    return None if found is None else Place(*found)


def _gap_ahead(db: Reader, room_nid: int, place: Place, rows: Sequence[EventRow]) -> Place | None:
    """Where history is missing right before one of these rows: the earliest that names a parent which we
    lack. The first event of all doesn't count: how much is missing before it, nobody knows."""
    if not rows:
        return None
    found = timeline.gap_between(db, room_nid, place_of(rows[0]), place_of(rows[-1]), earliest=True)
    if found == place_of(rows[0]) and not timeline.page_back(db, room_nid, *place, 1):
        second = Place(found[0], found[1] + 1)
        found = timeline.gap_between(db, room_nid, second, place_of(rows[-1]), earliest=True)
    return None if found is None else Place(*found)


def _is_more_before(db: Reader, room_nid: int, place: Place) -> bool:
    return bool(timeline.page_back(db, room_nid, *place, 1)) or (
        _gap(db, room_nid, place, (), is_last=True) is not None
    )
