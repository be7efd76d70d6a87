# SPDX-License-Identifier: Apache-2.0
"""How many events of a room would notify its reader since they last read (client-server-api, "Receiving
notifications" and "Threading").

Counted when asked for, by the user's push rules, and kept while neither the rules nor the user's receipts
change: then only what arrived since is looked at. Sending an event counts as having read up to it.

An unthreaded receipt is for all threads, a threaded one for its own; `m.read` and `m.read.private` count
alike, the further one wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from minihs.matrix.auth_rules import PowerLevels
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.matrix.push_conditions import CompiledRules, PushContext, PushOutcome
from minihs.store import events, ids, push_rules, receipts, relations, state, sync_rooms, timeline
from minihs.store.reader import Reader
from minihs.store.receipts import MAIN, UNTHREADED
from minihs.store.timeline import NEWEST, EventRow
from minihs.sync.client_events import REDACTION, client_event
from minihs.sync.filters import ALL
from minihs.sync.group_facts import GroupFacts
from minihs.sync.selection import Selector

CHUNKS = (50, 200, 250, 500)
"""Events of one room that are looked at, newest first; a room with more unread shows the count of its newest
thousand. The first count of a room ends with the chunk that reaches what the user has read of the main
timeline: older notifications in threads are not searched for."""

MAX_COUNTED = sum(CHUNKS)

THREAD_HOPS = 3
"""Steps along relations to find the thread that an event is in."""

MAX_KEPT = 5000
"""(user, room) pairs whose counts are kept; beyond that all are dropped and counted again."""


MAX_ROOMS = 500
"""(user, room) pairs of which power levels and the like are kept."""


class Counts(NamedTuple):
    notify: int = 0
    highlight: int = 0

    def to_json(self) -> JsonObject:
        return {"notification_count": self.notify, "highlight_count": self.highlight}


class Notifying(NamedTuple):
    """An event that notifies."""

    nid: int
    arrival: int
    thread: str
    outcome: PushOutcome


class Judged(NamedTuple):
    """An event that its reader is shown."""

    row: EventRow
    thread: str
    outcome: PushOutcome | None
    """None: no rule matched, or it is their own."""


class Shown(NamedTuple):
    """All that the user is shown of what arrived since, where somebody has found that out already."""

    since: int
    rows: Sequence[EventRow]
    """Oldest first."""
    group: int | None
    """The state after them."""


class _Kept(NamedTuple):
    """What was counted last. Keeping up costs in proportion to what is new, not to what is unread."""

    basis: tuple[int, frozenset[str]]
    """Push rules and ignored users that this was counted by."""
    read: Mapping[str, int]
    """What the user had read by then: see `receipts.read_upto`."""
    upto: int
    """Events up to this arrival are counted."""
    notifying: list[Notifying]
    """Those that are unread, oldest first."""
    counts: Mapping[str, Counts]


class Unread:
    """Keeps counts. Used on the loop and in threads: entries are replaced whole, never changed."""

    def __init__(self, facts: GroupFacts) -> None:
        self._facts = facts
        self._kept: dict[tuple[str, int], _Kept] = {}
        self._rules: dict[str, tuple[int, CompiledRules]] = {}
        self._rooms: dict[tuple[str, int], _Room] = {}

    def counts(
        self,
        db: Reader,
        user_id: str,
        room_nid: int,
        room_id: str,
        upto: int,
        ignored: frozenset[str],
        shown: Shown | None = None,
    ) -> Mapping[str, Counts]:
        """thread (MAIN or a root's event id) → counts, as of `upto`."""
        return self._as_of(db, user_id, room_nid, room_id, upto, ignored, shown).counts

    def notifying(
        self, db: Reader, user_id: str, room_nid: int, room_id: str, upto: int, ignored: frozenset[str]
    ) -> list[Notifying]:
        """What notifies and is unread as of `upto`, oldest first."""
        return self._as_of(db, user_id, room_nid, room_id, upto, ignored).notifying

    def _as_of(
        self,
        db: Reader,
        user_id: str,
        room_nid: int,
        room_id: str,
        upto: int,
        ignored: frozenset[str],
        shown: Shown | None = None,
    ) -> _Kept:
        basis = (push_rules.last_change(db, user_id), ignored)
        read = receipts.read_upto(db, room_nid, user_id)
        kept = self._kept.get((user_id, room_nid))
        if kept is None or kept.basis != basis:
            start = max(read.get(UNTHREADED, 0), joined_pos(db, user_id, room_nid))
            kept = _Kept(basis, read, start, [], {})
        if kept.upto < upto:
            kept = self._go_on(db, user_id, room_nid, room_id, kept, upto, read, shown)
            if len(self._kept) > MAX_KEPT:
                self._kept = {}
            self._kept[user_id, room_nid] = kept
        elif kept.upto > upto or kept.read != read:  # others have counted further already
            unread = [item for item in kept.notifying if item.arrival <= upto and not _is_read(item, read)]
            kept = _Kept(basis, read, upto, unread, _count({}, unread))
        return kept

    def judge(
        self,
        db: Reader,
        user_id: str,
        room_nid: int,
        room_id: str,
        rows: Sequence[EventRow],
        ignored: frozenset[str],
    ) -> list[Judged]:
        """Those of some events that the user is shown, and what their push rules say of each."""
        selector = Selector(db, self._facts, user_id, ALL, ignored)
        shown = selector.pick([row for row in rows if row.redacted_by is None])
        room = self._room(db, user_id, room_nid, timeline.state_at_pos(db, room_nid, NEWEST))
        return self._judge(db, user_id, room, self.rules(db, user_id), room_id, shown)

    def _judge(
        self,
        db: Reader,
        user_id: str,
        room: _Room,
        rules: CompiledRules,
        room_id: str,
        shown: Sequence[EventRow],
    ) -> list[Judged]:
        bodies = self._facts.bodies.get(db, shown)
        threads = _threads(db, bodies)
        judged = []
        for row in shown:
            if row.nid not in bodies:
                continue
            outcome = None
            if row.sender != user_id:
                event_id, pdu = bodies[row.nid]
                event = client_event(event_id, pdu, {}, room_id=room_id)
                outcome = rules.evaluate(event, room.context(row.sender))
            judged.append(Judged(row, threads.get(row.nid, MAIN), outcome))
        return judged

    def _go_on(
        self,
        db: Reader,
        user_id: str,
        room_nid: int,
        room_id: str,
        kept: _Kept,
        upto: int,
        read: Mapping[str, int],
        shown: Shown | None,
    ) -> _Kept:
        """Count what arrived since `kept`. Whatever the user said themselves counts as read up to there."""
        newer: list[Notifying] = []
        own: dict[str, int] = {}
        end, redacting = upto, False
        for chunk in CHUNKS:
            if shown is not None and shown.since <= kept.upto and len(shown.rows) < CHUNKS[0]:
                rows = [row for row in reversed(shown.rows) if (row.arrival or 0) > kept.upto]
                whole = [row for row in rows if row.redacted_by is None]
                room = self._room(db, user_id, room_nid, shown.group)
                judged = self._judge(
                    db, user_id, room, self._rules_as_of(db, user_id, kept.basis[0]), room_id, whole
                )
            else:
                rows = timeline.latest(db, room_nid, kept.upto, end, chunk)
                judged = self.judge(db, user_id, room_nid, room_id, rows, kept.basis[1])
            redacting = redacting or any(row.type == REDACTION for row in rows)
            for row, thread, outcome in judged:
                if row.sender == user_id:
                    own.setdefault(thread, row.arrival or 0)
                elif outcome is not None and outcome.notify and thread not in own:
                    item = Notifying(row.nid, row.arrival or 0, thread, outcome)
                    if not _is_read(item, read):
                        newer.append(item)
            if len(rows) < chunk or MAIN in own or (rows[-1].arrival or 0) <= read.get(MAIN, 0):
                break
            end = (rows[-1].arrival or 0) - 1
        newer.reverse()
        older = kept.notifying
        if own or kept.read != read:
            older = [i for i in older if i.arrival > own.get(i.thread, 0) and not _is_read(i, read)]
        if redacting:
            rows_now = timeline.rows_of(db, [item.nid for item in older])
            older = [item for item in older if rows_now[item.nid].redacted_by is None]
        unread = [*older, *newer]
        dropped, unread = unread[:-MAX_COUNTED], unread[-MAX_COUNTED:]
        if older is kept.notifying:
            counts = _count(_count(kept.counts, newer), dropped, -1)
        else:
            counts = _count({}, unread)
        return _Kept(kept.basis, read, upto, unread, counts)

    def _room(self, db: Reader, user_id: str, room_nid: int, group: int | None) -> _Room:
        room = self._rooms.get((user_id, room_nid))
        if room is None or room.group != group:
            if len(self._rooms) > MAX_ROOMS:
                self._rooms = {}
            room = self._rooms[user_id, room_nid] = _Room(db, self._facts, user_id, room_nid, group)
        return room

    def rules(self, db: Reader, user_id: str) -> CompiledRules:
        """The user's push rules, ready to be matched."""
        return self._rules_as_of(db, user_id, push_rules.last_change(db, user_id))

    def _rules_as_of(self, db: Reader, user_id: str, rules_pos: int) -> CompiledRules:
        """`rules_pos`: of their last change."""
        known = self._rules.get(user_id)
        if known is None or known[0] != rules_pos:
            if len(self._rules) > MAX_KEPT:
                self._rules = {}
            known = (rules_pos, CompiledRules(push_rules.ruleset(db, user_id)))
            self._rules[user_id] = known
        return known[1]


class _Room:
    """What push conditions need to know of a room, as of one state of it."""

    __slots__ = ("group", "levels", "members", "name", "notifications")

    def __init__(self, db: Reader, facts: GroupFacts, user_id: str, room_nid: int, group: int | None) -> None:
        self.group = group
        self.members = sync_rooms.joined_count(db, room_nid)
        keys = [
            facts.key(db, "m.room.power_levels", ""),
            facts.key(db, "m.room.create", ""),
            facts.key(db, "m.room.member", user_id),
        ]
        wanted = [key for key in keys if key is not None]
        nids = {} if group is None else state.lookup(db, group, wanted)
        found = events.get_nids(db, nids.values())

        def at(place: int) -> Event | None:
            stored = found.get(nids.get(keys[place] or 0, 0))
            return None if stored is None else stored.event

        power_levels, member = at(0), at(2)
        self.levels = PowerLevels(power_levels, at(1))
        notifications = power_levels.content.get("notifications") if power_levels is not None else None
        self.notifications = {
            key: value
            for key, value in (notifications.items() if isinstance(notifications, dict) else ())
            if type(value) is int
        }
        name = None if member is None else member.content.get("displayname")
        self.name = name if isinstance(name, str) else None

    def context(self, sender: str) -> PushContext:
        return PushContext(self.members, self.levels.user(sender), self.notifications, self.name)


def joined_pos(db: Reader, user_id: str, room_nid: int) -> int:
    """What happened before the user came is not unread."""
    joined = 0
    for span in reversed(sync_rooms.spans(db, user_id, room_nid)):
        if span.membership != "join":
            break
        joined = span.pos
    return joined


def _threads(db: Reader, bodies: Mapping[int, tuple[str, JsonObject]]) -> dict[int, str]:
    """Those of these events that are in a thread: nid → the root's event id.

    An event is in a thread if it says so, or if what it relates to is in one.
    """
    related = [nid for nid, (_, pdu) in bodies.items() if "m.relates_to" in _content(pdu)]
    if not related:
        return {}
    roots = relations.threads_of(db, related, THREAD_HOPS)
    names = ids.event_ids(db, set(roots.values()))
    return {nid: names[root] for nid, root in roots.items()}


def in_sync(counts: Mapping[str, Counts], *, by_thread: bool) -> JsonObject:
    """`unread_notifications` and, if asked for, `unread_thread_notifications`."""
    summed = [each for thread, each in counts.items() if thread == MAIN or not by_thread]
    total = Counts(sum(each.notify for each in summed), sum(each.highlight for each in summed))
    result: JsonObject = {"unread_notifications": total.to_json()}
    threads = {thread: each.to_json() for thread, each in counts.items() if thread != MAIN}
    if by_thread and threads:
        result["unread_thread_notifications"] = threads
    return result


def _is_read(item: Notifying, read: Mapping[str, int]) -> bool:
    return item.arrival <= max(read.get(UNTHREADED, 0), read.get(item.thread, 0))


def _count(counted: Mapping[str, Counts], items: Sequence[Notifying], step: int = 1) -> Mapping[str, Counts]:
    """The counts with some items more, or (`step` -1) fewer."""
    if not items:
        return counted
    counts = dict(counted)
    for item in items:
        notify, highlight = counts.pop(item.thread, (0, 0))
        if notify + step > 0:
            counts[item.thread] = Counts(notify + step, highlight + step * item.outcome.highlight)
    return counts


def _content(pdu: JsonObject) -> JsonObject:
    content = pdu.get("content")
    return content if isinstance(content, dict) else {}
