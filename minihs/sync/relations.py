# SPDX-License-Identifier: Apache-2.0
"""What relates to an event, and the threads of a room, page by page (client-server-api, "Relationships API",
"Querying threads in a room").

Both go by place, as /messages does, and take its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import invalid_param
from minihs.matrix.redaction import redact
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import account_data, relations, timeline
from minihs.store.database import Database
from minihs.store.reader import Reader
from minihs.store.relations import Query, Thread
from minihs.store.timeline import EventRow
from minihs.sync import visibility
from minihs.sync.client_events import Viewer, client_event, client_events
from minihs.sync.filters import ALL
from minihs.sync.group_facts import GroupFacts
from minihs.sync.messages import FIRST, LAST, cut, place_of, take
from minihs.sync.selection import MAX_ROUND, MAX_ROUNDS, Selector
from minihs.sync.tokens import Place, parse_place
from minihs.sync.visibility import Access

MAX_RELATIONS = 100
"""Events on one page."""

MAX_DEPTH = 3
"""With `recurse`: steps from an event to what relates to it."""

MAX_THREADS = 50
"""Threads on one page."""


@dataclass(frozen=True, slots=True)
class RelationOptions:
    """The parameters of one request, checked."""

    limit: int
    rel_type: str | None = None
    type: str | None = None
    forward: bool = False
    start: str | None = None
    stop: str | None = None
    recurse: bool = False
    """Also what relates to what relates to the event, and so on; the depth is told then."""


class Relations:
    def __init__(self, db: Database, runtime: Runtime, facts: GroupFacts) -> None:
        self._db = db
        self._runtime = runtime
        self._facts = facts

    async def children(
        self, requester: Requester, room_id: str, event_id: str, options: RelationOptions
    ) -> JsonObject:
        """GET /relations. M_NOT_FOUND: the event isn't there or isn't theirs to see."""
        return await self._db.scan(lambda db: self._children(db, requester, room_id, event_id, options))

    async def threads(
        self, requester: Requester, room_id: str, *, limit: int, start: str | None, participated: bool
    ) -> JsonObject:
        """GET /threads. M_FORBIDDEN: the room is not theirs to read."""
        return await self._db.scan(
            lambda db: self._threads(db, requester, room_id, limit, start, participated)
        )

    # -- relations ---------------------------------------------------------------------------------

    def _children(
        self, db: Reader, requester: Requester, room_id: str, event_id: str, options: RelationOptions
    ) -> JsonObject:
        parent, access = visibility.visible_event(db, self._facts, requester.user_id, room_id, event_id)
        forward = options.forward
        depth = MAX_DEPTH if options.recurse else 1
        query = Query(parent.room_nid, parent.nid, options.rel_type, options.type, depth)
        start, stop = (FIRST, LAST) if forward else (LAST, FIRST)
        if options.start is not None:
            start = cut(db, access, parse_place(options.start), forward=forward, is_stop=False)
        if options.stop is not None:
            stop = cut(db, access, parse_place(options.stop), forward=forward, is_stop=True)
        select = self._selector(db, requester)
        rows, end = _page(select, query, start, stop, options.limit, forward=forward)
        answer: JsonObject = {"chunk": self._events(db, requester, access, rows)}
        if end is not None:
            answer["next_batch"] = str(end)
        if options.start is not None:
            answer["prev_batch"] = options.start
        if options.recurse:
            answer["recursion_depth"] = depth
        return answer

    # -- threads -----------------------------------------------------------------------------------

    def _threads(
        self,
        db: Reader,
        requester: Requester,
        room_id: str,
        limit: int,
        start: str | None,
        participated: bool,
    ) -> JsonObject:
        access = visibility.access(db, self._facts, requester.user_id, room_id)
        place = LAST
        if start is not None:
            token = parse_place(start)
            if not isinstance(token, Place):
                raise invalid_param("The pagination token is not one of a list of threads.")
            place = token
        with_user = requester.user_id if participated else None
        chunk: list[JsonObject] = []
        for _ in range(MAX_ROUNDS):
            want = limit - len(chunk) + 1
            found = relations.threads(db, access.room_nid, place, want, with_user=with_user)
            chunk += self._roots(db, requester, access, found[: want - 1])
            if len(found) < want:
                return {"chunk": chunk}
            place = Place(found[-1].topo, found[-1].arrival)
            if len(chunk) == limit:
                break
        return {"chunk": chunk, "next_batch": str(place)}

    def _roots(
        self, db: Reader, requester: Requester, access: Access, found: Sequence[Thread]
    ) -> list[JsonObject]:
        """The first events of these threads, as far as the reader may see them and something said there."""
        rows = timeline.rows_of(db, [thread.root_nid for thread in found])
        seen = visibility.visible(db, self._facts, requester.user_id, list(rows.values()))
        shown = [rows[thread.root_nid] for thread in found if thread.root_nid in seen]
        ignored = account_data.ignored_users(db, requester.user_id) - {requester.user_id}
        version = ROOM_VERSIONS.get(access.version or "")
        events = []
        for row, event in zip(shown, self._events(db, requester, access, shown), strict=True):
            if "m.thread" not in event["unsigned"].get("m.relations", {}):
                continue  # all that was said there is hidden from the reader
            if row.sender in ignored and version is not None:
                event_id, pdu = timeline.bodies(db, [row.nid])[row.nid]
                event = client_event(
                    event_id, redact(pdu, version), event["unsigned"], room_id=access.room_id
                )
            events.append(event)
        return events

    # -- both --------------------------------------------------------------------------------------

    def _selector(self, db: Reader, requester: Requester) -> Selector:
        ignored = account_data.ignored_users(db, requester.user_id) - {requester.user_id}
        return Selector(db, self._facts, requester.user_id, ALL, ignored)

    def _events(
        self, db: Reader, requester: Requester, access: Access, rows: Sequence[EventRow]
    ) -> list[JsonObject]:
        events = client_events(
            db,
            self._facts,
            rows,
            viewer=Viewer(requester.user_id, requester.device_id),
            now_ms=self._runtime.clock.now_ms(),
            room_ids={access.room_nid: access.room_id},
        )
        return [events[row.nid] for row in rows if row.nid in events]


def _page(
    select: Selector, query: Query, start: Place, stop: Place, limit: int, *, forward: bool
) -> tuple[list[EventRow], Place | None]:
    """The events of one page, and where the next begins; None: there is no more."""
    found: list[EventRow] = []
    place, want = start, limit + 1
    for _ in range(MAX_ROUNDS):
        rows = relations.page(select.db, query, place, want, forward=forward)
        inside = [row for row in rows if (place_of(row) <= stop if forward else place_of(row) > stop)]
        place = take(select, inside, found, limit, place, forward=forward)
        if len(found) == limit:
            more = relations.page(select.db, query, place, 1, forward=forward)
            return found, place if more else None
        if len(inside) < len(rows) or len(rows) < want:
            return found, None
        want = min(2 * want + 20, MAX_ROUND)
    return found, place
