# SPDX-License-Identifier: Apache-2.0
"""POST /search: full text search over what a user may see (client-server-api, "Server Side Search").

Searched are rooms that the user is in or has left and not forgotten, of these events only what arrived up to
then, and no encrypted rooms. Each match is judged as it would be on any other reading path.

Pages: `<newest>_<offset>`, so that what is said meanwhile does not shift them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from minihs.matrix import fields
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, invalid_param
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import account_data, old_events, state, sync_rooms, timeline
from minihs.store import search as store
from minihs.store.database import Database
from minihs.store.reader import Reader
from minihs.store.search import Match, Term
from minihs.store.timeline import NEWEST, EventRow
from minihs.sync import visibility
from minihs.sync.client_events import Viewer, client_events
from minihs.sync.filters import EventFilter, parse_event_filter
from minihs.sync.group_facts import GroupFacts
from minihs.sync.messages import place_of
from minihs.sync.selection import Selector

DEFAULT_LIMIT, MAX_LIMIT = 10, 100
DEFAULT_CONTEXT, MAX_CONTEXT = 5, 50
MAX_TERM = 1000
"""Bytes of a search term."""

LOOKED_AT_ONCE = 200
"""Matches that are read and judged in one go."""

MAX_LOOKED_AT = 2000
"""Matches that one request judges; what is found beyond them comes with the next page."""

CATCH_UP_INTERVAL = 600.0
OLD_EVENTS_PAUSE = 0.1
"""Seconds between two helpings of old events: others write, too."""

GROUP_KEYS = ("room_id", "sender")

_TOKEN = re.compile(r"([0-9]{1,18})_([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Criteria:
    """A request, checked."""

    terms: list[Term]
    columns: frozenset[str]
    filter: EventFilter
    limit: int
    by_rank: bool
    before: int = 0
    after: int = 0
    context: bool = False
    profiles: bool = False
    state: bool = False
    groups: tuple[str, ...] = ()
    newest: int | None = None
    offset: int = 0


def parse(body: JsonObject, next_batch: str | None) -> Criteria | None:
    """None: nothing was asked for that we have."""
    wanted = fields.optional_object(fields.required_object(body, "search_categories"), "room_events")
    if wanted is None:
        return None
    text = fields.required_text(wanted, "search_term", limit=MAX_TERM)
    keys = fields.texts(wanted.get("keys", list(store.COLUMNS)), "keys")
    order = wanted.get("order_by", "rank")
    if order not in ("rank", "recent"):
        raise invalid_param('order_by must be "rank" or "recent".')
    context = fields.optional_object(wanted, "event_context")
    wanted_filter = parse_event_filter(wanted.get("filter", {}))
    newest, offset = _parse_token(next_batch) if next_batch else (None, 0)
    return Criteria(
        terms=store.parse(text),
        columns=frozenset(store.COLUMNS[key] for key in keys if key in store.COLUMNS),
        filter=wanted_filter,
        limit=max(1, min(DEFAULT_LIMIT if wanted_filter.limit is None else wanted_filter.limit, MAX_LIMIT)),
        by_rank=order == "rank",
        context=context is not None,
        before=_context_limit(context or {}, "before_limit"),
        after=_context_limit(context or {}, "after_limit"),
        profiles=fields.flag(context or {}, "include_profile"),
        state=fields.flag(wanted, "include_state"),
        groups=_groups(fields.optional_object(wanted, "groupings") or {}),
        newest=newest,
        offset=offset,
    )


def _context_limit(context: JsonObject, name: str) -> int:
    limit = fields.number(context, name, DEFAULT_CONTEXT)
    if limit < 0:
        raise invalid_param(f"{name} can't be negative.")
    return min(limit, MAX_CONTEXT)


def _groups(groupings: JsonObject) -> tuple[str, ...]:
    found = []
    group_by = groupings.get("group_by", [])
    for each in group_by if isinstance(group_by, list) else [None]:
        key = each.get("key") if isinstance(each, dict) else None
        if not isinstance(key, str):
            raise bad_json("group_by must be a list of objects with a key.")
        if key not in GROUP_KEYS:
            raise invalid_param(f"Results can be grouped by {' or '.join(GROUP_KEYS)}.")
        found.append(key)
    return tuple(found)


def _parse_token(text: str) -> tuple[int, int]:
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise invalid_param("next_batch is malformed.")
    return int(match[1]), int(match[2])


@dataclass(slots=True)
class _Found:
    matches: list[Match] = field(default_factory=list)
    count: int = 0
    next_offset: int | None = None


class Search:
    def __init__(self, db: Database, runtime: Runtime, facts: GroupFacts) -> None:
        self._db = db
        self._runtime = runtime
        self._facts = facts
        self._catching_up = trio.Lock()

    async def search(self, requester: Requester, criteria: Criteria) -> JsonObject:
        """The answer's `room_events`."""
        await self.catch_up()
        return await self._db.scan(lambda db: _Answer(self, db, requester, criteria).build())

    async def catch_up(self) -> None:
        """Bring the index up to date."""
        if not store.is_behind(self._db.read):
            return
        async with self._catching_up:
            while await self._db.write(store.catch_up):
                pass

    async def run(self) -> None:
        """Don't leave it all to the next search. First of all, what was stored before there were indexes."""
        while old_events.are_left(self._db.read):
            await self._db.write(old_events.index)
            await trio.sleep(OLD_EVENTS_PAUSE)
        while True:
            await trio.sleep(CATCH_UP_INTERVAL)
            if store.is_behind(self._db.read) > store.WINDOW:
                await self.catch_up()

    @property
    def facts(self) -> GroupFacts:
        return self._facts

    def now_ms(self) -> int:
        return self._runtime.clock.now_ms()


class _Answer:
    """One search, on one state of the database."""

    def __init__(self, search: Search, db: Reader, requester: Requester, criteria: Criteria) -> None:
        self._db = db
        self._facts = search.facts
        self._now_ms = search.now_ms()
        self._viewer = Viewer(requester.user_id, requester.device_id)
        self._criteria = criteria
        self._rooms = self._searchable()
        ignored = account_data.ignored_users(db, requester.user_id) - {requester.user_id}
        self._select = Selector(db, self._facts, requester.user_id, criteria.filter, ignored)
        self._newest = sync_rooms.current_pos(db) if criteria.newest is None else criteria.newest

    def build(self) -> JsonObject:
        criteria = self._criteria
        found = self._find()
        rows = [match.row for match in found.matches]
        events = self._events(rows)
        answer: JsonObject = {
            "count": found.count,
            "highlights": highlights(criteria.terms),
            "results": [
                {"rank": match.rank, "result": events[match.row.nid]}
                for match in found.matches
                if match.row.nid in events
            ],
        }
        if criteria.context:
            contexts = self._contexts(rows)
            for match, result in zip(found.matches, answer["results"], strict=True):
                result["context"] = contexts[match.row.nid]
        if criteria.state:
            answer["state"] = self._states(rows)
        if criteria.groups:
            answer["groups"] = {
                key: _grouped(key, [result["result"] for result in answer["results"]])
                for key in criteria.groups
            }
        if found.next_offset is not None:
            answer["next_batch"] = f"{self._newest}_{found.next_offset}"
        return answer

    # -- what is searched --------------------------------------------------------------------------

    def _searchable(self) -> dict[int, tuple[str, int]]:
        """room_nid → (room id, the last arrival that counts)."""
        db, user_id, wanted = self._db, self._viewer.user_id, self._criteria.filter
        encrypted = store.encrypted_rooms(db)
        found = {}
        for room in sync_rooms.memberships_at(db, user_id, NEWEST, left=True):
            if room.room_nid in encrypted or not wanted.allows_room(room.room_id):
                continue
            if room.membership == "join":
                found[room.room_nid] = (room.room_id, NEWEST)
            else:
                left = visibility.left_at(sync_rooms.spans(db, user_id, room.room_nid))
                if left is not None:
                    found[room.room_nid] = (room.room_id, left)
        return found

    def _find(self) -> _Found:
        criteria, found = self._criteria, _Found()
        text = store.expression(criteria.terms, criteria.columns)
        rooms = {nid: upto for nid, (_, upto) in self._rooms.items()}
        if text is None or not rooms:
            return found
        offset, looked_at, seen = criteria.offset, 0, 0
        while looked_at < MAX_LOOKED_AT:
            matches = store.matches(
                self._db,
                text,
                rooms,
                self._newest,
                by_rank=criteria.by_rank,
                offset=offset,
                limit=LOOKED_AT_ONCE,
            )
            shown = self._shown([match.row for match in matches])
            for place, match in enumerate(matches):
                if match.row.nid in shown and len(found.matches) < criteria.limit:
                    found.matches.append(match)
                    if len(found.matches) == criteria.limit:
                        found.next_offset = offset + place + 1
            looked_at += len(matches)
            seen += len(shown)
            offset += len(matches)
            if len(matches) < LOOKED_AT_ONCE:
                found.count = seen
                if found.next_offset == offset:
                    found.next_offset = None
                return found
            if len(found.matches) == criteria.limit:
                break
        total = store.count(self._db, text, rooms, self._newest)
        found.count = total * seen // max(1, looked_at)
        found.next_offset = found.next_offset or offset
        return found

    def _shown(self, rows: Sequence[EventRow]) -> set[int]:
        shown: set[int] = set()
        for same_room in _by_room(rows).values():
            shown.update(row.nid for row in self._select.pick(same_room))
        return shown

    # -- what goes with the results ----------------------------------------------------------------

    def _contexts(self, rows: Sequence[EventRow]) -> dict[int, JsonObject]:
        """nid → what is around the event."""
        before = {row.nid: self._around(row, forward=False) for row in rows}
        after = {row.nid: self._around(row, forward=True) for row in rows}
        events = self._events(each for some in (before, after) for nid in some for each in some[nid][0])
        contexts = {}
        for row in rows:
            (earlier, start), (later, end) = before[row.nid], after[row.nid]
            context: JsonObject = {
                "start": start,
                "end": end,
                "events_before": [events[each.nid] for each in earlier if each.nid in events],
                "events_after": [events[each.nid] for each in later if each.nid in events],
            }
            if self._criteria.profiles:
                context["profile_info"] = self._profiles(
                    row, {each.sender for each in (row, *earlier, *later)}
                )
            contexts[row.nid] = context
        return contexts

    def _around(self, row: EventRow, *, forward: bool) -> tuple[list[EventRow], str]:
        """What is shown right before or after an event, nearest first, and the token from where on there is
        more."""
        place, gaps = place_of(row), timeline.gaps(self._db, row.room_nid)
        if forward:
            rows = timeline.page_forward(self._db, row.room_nid, *place, self._criteria.after)
            rows = timeline.seamless(rows, gaps, forward=True)
            end = place_of(rows[-1] if rows else row)
        else:
            rows = timeline.page_back(self._db, row.room_nid, *place.before(), self._criteria.before)
            rows = [] if row.nid in gaps else timeline.seamless(rows, gaps, forward=False)
            end = place_of(rows[-1] if rows else row).before()
        return self._select_around(rows), str(end)

    def _select_around(self, rows: Sequence[EventRow]) -> list[EventRow]:
        everything = Selector(
            self._db, self._facts, self._viewer.user_id, EventFilter(), self._select.ignored
        )
        return everything.pick(rows)

    def _profiles(self, row: EventRow, senders: Collection[str]) -> JsonObject:
        """The senders' names and pictures as they were at the event."""
        if row.after_group is None:
            return {}
        keys = timeline.member_keys(self._db, senders).values()
        members = state.lookup(self._db, row.after_group, keys).values()
        profiles: JsonObject = {}
        for _, pdu in timeline.bodies(self._db, set(members)).values():
            content = pdu["content"]
            names = [name for name in ("displayname", "avatar_url") if isinstance(content.get(name), str)]
            profiles[pdu["state_key"]] = {name: content[name] for name in names}
        return profiles

    def _states(self, rows: Sequence[EventRow]) -> dict[str, list[JsonObject]]:
        """room id → the state that the user reads there."""
        states = {}
        for room_nid in dict.fromkeys(row.room_nid for row in rows):
            room_id, upto = self._rooms[room_nid]
            group = timeline.state_at_pos(self._db, room_nid, upto)
            nids = set() if group is None else set(state.read_group(self._db, group).values())
            found = timeline.rows_of(self._db, nids).values()
            states[room_id] = list(self._events(found, as_state=True).values())
        return states

    def _events(self, rows: Iterable[EventRow], *, as_state: bool = False) -> dict[int, JsonObject]:
        return client_events(
            self._db,
            self._facts,
            rows,
            viewer=self._viewer,
            now_ms=self._now_ms,
            room_ids={nid: room_id for nid, (room_id, _) in self._rooms.items()},
            timeline_nids=set() if as_state else None,
        )


def _by_room(rows: Iterable[EventRow]) -> Mapping[int, list[EventRow]]:
    rooms: dict[int, list[EventRow]] = {}
    for row in rows:
        rooms.setdefault(row.room_nid, []).append(row)
    return rooms


def _grouped(key: str, events: Iterable[JsonObject]) -> JsonObject:
    groups: JsonObject = {}
    for event in events:
        group = groups.setdefault(event[key], {"results": [], "order": len(groups) + 1})
        group["results"].append(event["event_id"])
    return groups


def highlights(terms: Iterable[Term]) -> list[str]:
    """The words that were looked for."""
    words = (word.lower() for term in terms if term.wanted for word in re.findall(r"\w+", term.text))
    return list(dict.fromkeys(words))
