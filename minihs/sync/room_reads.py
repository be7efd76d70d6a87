# SPDX-License-Identifier: Apache-2.0
"""Reading single events, state, members and the surroundings of an event (client-server-api, "Getting events
for a room").

Who is in the room reads its current state; who left it, the state when they left; anybody else only a world
readable room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import forbidden, not_found
from minihs.requester import Requester
from minihs.rooms.whole import Whole
from minihs.runtime import Runtime
from minihs.store import account_data, aliases, ids, memberships, partial, rooms, state, sync_rooms, timeline
from minihs.store.database import Database
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.sync import visibility
from minihs.sync.client_events import Viewer, client_events
from minihs.sync.filters import EventFilter
from minihs.sync.group_facts import GroupFacts
from minihs.sync.room_state import unknown_senders
from minihs.sync.selection import Selector
from minihs.sync.tokens import Place, parse_place
from minihs.sync.visibility import Access

MAX_CONTEXT = 200

MEMBER = "m.room.member"


@dataclass(frozen=True, slots=True)
class MemberOptions:
    """The parameters of /members, checked."""

    at: str | None = None
    membership: str | None = None
    not_membership: str | None = None

    def wants(self, membership: str | None) -> bool:
        if self.membership is None and self.not_membership is None:
            return True
        is_it = self.membership is not None and membership == self.membership
        is_not = self.not_membership is not None and membership != self.not_membership
        return is_it or is_not


class RoomReads:
    def __init__(self, db: Database, runtime: Runtime, facts: GroupFacts, whole: Whole | None = None) -> None:
        self._db = db
        self._whole = whole or Whole(db)
        self._runtime = runtime
        self._facts = facts

    def event(self, requester: Requester, room_id: str, event_id: str) -> JsonObject:
        """GET /event. M_NOT_FOUND if it isn't there or isn't theirs to see."""
        db = self._db.read
        row, access = visibility.visible_event(db, self._facts, requester.user_id, room_id, event_id)
        return self._events(db, requester, access, [row])[0]

    async def state(self, requester: Requester, room_id: str) -> list[JsonObject]:
        """GET /state: every state event."""
        await self._all_members(requester, room_id)

        def read(db: Reader) -> list[JsonObject]:
            access = visibility.access(db, self._facts, requester.user_id, room_id)
            nids = state.read_group(db, _group_of(db, access)).values()
            rows = timeline.rows_of(db, set(nids))
            return self._events(db, requester, access, rows.values(), as_state=True)

        return await self._db.scan(read)

    async def state_event(self, requester: Requester, room_id: str, type: str, state_key: str) -> JsonObject:
        """GET /state/{type}/{key}: one state event, whole. M_NOT_FOUND."""
        db = self._db.read
        nid, access = self._state_nid(requester, room_id, type, state_key)
        if nid is None and type == MEMBER:
            await self._all_members(requester, room_id)
            nid, access = self._state_nid(requester, room_id, type, state_key)
        if nid is None:
            raise not_found("The room has no state of that type and key.")
        return self._events(db, requester, access, timeline.rows_of(db, [nid]).values())[0]

    def _state_nid(
        self, requester: Requester, room_id: str, type: str, state_key: str
    ) -> tuple[int | None, Access]:
        db = self._db.read
        access = visibility.access(db, self._facts, requester.user_id, room_id)
        key = ids.key_nid(db, type, state_key)
        return None if key is None else state.lookup(db, _group_of(db, access), (key,)).get(key), access

    async def _all_members(self, requester: Requester, room_id: str) -> None:
        """Wait until they are known, if the user may look into the room at all."""
        visibility.access(self._db.read, self._facts, requester.user_id, room_id)
        await self._whole.wait(room_id)

    async def members(self, requester: Requester, room_id: str, options: MemberOptions) -> list[JsonObject]:
        """GET /members."""
        await self._all_members(requester, room_id)

        def read(db: Reader) -> list[JsonObject]:
            access = visibility.access(db, self._facts, requester.user_id, room_id)
            group = _group_of(db, access)
            if options.at is not None:
                group = self._group_at(db, requester.user_id, access, options.at)
            whole = state.read_group(db, group)
            keys = self._facts.member_keys(db, whole)
            rows = timeline.rows_of(db, [whole[key] for key in keys])
            wanted = [row for row in rows.values() if options.wants(row.membership)]
            return self._events(db, requester, access, wanted, as_state=True)

        return await self._db.scan(read)

    async def joined_members(self, requester: Requester, room_id: str) -> JsonObject:
        """GET /joined_members: user id → profile in the room. Only for those who are in it."""
        await self._all_members(requester, room_id)

        def read(db: Reader) -> JsonObject:
            room = rooms.get(db, room_id)
            member = None if room is None else memberships.get(db, room.room_nid, requester.user_id)
            if room is None or member is None or member.membership != "join":
                raise forbidden("You are not in this room.")
            joined = {nid: user for user, nid in sync_rooms.joined_members(db, room.room_nid)}
            found: JsonObject = {}
            for nid, (_, pdu) in timeline.bodies(db, joined).items():
                content = pdu.get("content")
                names = (("display_name", "displayname"), ("avatar_url", "avatar_url"))
                found[joined[nid]] = {
                    ours: content[theirs]
                    for ours, theirs in names
                    if isinstance(content, dict) and isinstance(content.get(theirs), str)
                }
            return found

        return await self._db.scan(read)

    def aliases(self, requester: Requester, room_id: str) -> list[str]:
        """GET /aliases: local aliases, for members and of world readable rooms."""
        access = visibility.access(self._db.read, self._facts, requester.user_id, room_id)
        if not access.joined and not access.peeking:
            raise forbidden("You are not in this room.")
        return aliases.of_room(self._db.read, room_id)

    async def context(
        self, requester: Requester, room_id: str, event_id: str, limit: int, wanted: EventFilter
    ) -> JsonObject:
        """GET /context: the event, what is around it, and the state after the last event given."""

        def read(db: Reader) -> JsonObject:
            row, access = visibility.visible_event(db, self._facts, requester.user_id, room_id, event_id)
            if row.topo is None or row.arrival is None:
                raise not_found("The event is not in the room's timeline.")
            ignored = account_data.ignored_users(db, requester.user_id) - {requester.user_id}
            select = Selector(db, self._facts, requester.user_id, wanted, ignored)
            many = min(limit, MAX_CONTEXT)
            place = Place(row.topo, row.arrival)
            # Up to where history is missing: from there on the client pages, and others are asked for it.
            gaps = timeline.gaps(db, access.room_nid)
            before = timeline.page_back(db, access.room_nid, *place.before(), many // 2)
            before = [] if row.nid in gaps else timeline.seamless(before, gaps, forward=False)
            after = timeline.page_forward(db, access.room_nid, *place, many - many // 2)
            after = timeline.seamless(after, gaps, forward=True)
            shown_before, shown_after = select.pick(before), select.pick(after)
            first, last = (before or [row])[-1], (after or [row])[-1]
            return {
                "start": str(Place(first.topo or 0, first.arrival or 0).before()),
                "end": str(Place(last.topo or 0, last.arrival or 0)),
                "events_before": self._events(db, requester, access, shown_before),
                "event": self._events(db, requester, access, [row])[0],
                "events_after": self._events(db, requester, access, shown_after),
                "state": self._context_state(
                    db, requester, access, [*shown_before, row, *shown_after], wanted
                ),
            }

        return await self._db.scan(read)

    def _context_state(
        self,
        db: Reader,
        requester: Requester,
        access: Access,
        shown: Sequence[EventRow],
        wanted: EventFilter,
    ) -> list[JsonObject]:
        group = shown[-1].after_group
        if group is None:
            return []
        whole = state.read_group(db, group)
        if wanted.lazy_load_members:
            senders = set(timeline.member_keys(db, {row.sender for row in shown}).values())
            members = self._facts.member_keys(db, whole)
            whole = {key: nid for key, nid in whole.items() if key not in members or key in senders}
            if partial.is_partial(db, access.room_nid):
                whole |= unknown_senders(db, shown, group)
        rows = timeline.rows_of(db, set(whole.values()))
        return self._events(db, requester, access, rows.values(), as_state=True)

    def _group_at(self, db: Reader, user_id: str, access: Access, at: str) -> int:
        """The state at a token; M_FORBIDDEN if it is from a time that the user may not look into."""
        token = parse_place(at)
        if isinstance(token, Place):
            rows = timeline.page_back(db, access.room_nid, *token, 1)
            group = rows[0].after_group if rows else None
        else:
            group = timeline.state_at_pos(db, access.room_nid, min(token.pos, access.upto))
        if group is None:
            raise not_found("There was no such room then.")
        if self._facts.visibility_of(db, group) in ("joined", "invited"):
            key = ids.key_nid(db, MEMBER, user_id)
            nid = None if key is None else state.lookup(db, group, (key,)).get(key)
            row = None if nid is None else timeline.rows_of(db, [nid]).get(nid)
            if row is None or row.membership not in ("join", "invite"):
                raise forbidden("You were not in the room then.")
        return group

    def _events(
        self,
        db: Reader,
        requester: Requester,
        access: Access,
        rows: Iterable[EventRow],
        *,
        as_state: bool = False,
    ) -> list[JsonObject]:
        rows = list(rows)
        events = client_events(
            db,
            self._facts,
            rows,
            viewer=Viewer(requester.user_id, requester.device_id),
            now_ms=self._runtime.clock.now_ms(),
            room_ids={access.room_nid: access.room_id},
            timeline_nids=set() if as_state else None,
        )
        return [events[row.nid] for row in rows if row.nid in events]


def _group_of(db: Reader, access: Access) -> int:
    """The state that the user reads."""
    group = timeline.state_at_pos(db, access.room_nid, access.upto)
    if group is None:
        raise visibility.not_in_room()
    return group
