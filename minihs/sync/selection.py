# SPDX-License-Identifier: Apache-2.0
"""Which events of a room one reader is shown: those they may see, that pass their filter, not from ignored
users."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minihs.store import timeline
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.sync import visibility
from minihs.sync.client_events import REDACTION
from minihs.sync.filters import EventFilter
from minihs.sync.group_facts import GroupFacts
from minihs.sync.tokens import SyncToken

MAX_ROUNDS = 5
"""How often one request goes on looking when it finds nothing to show: each round reads more than the one
before."""

MAX_ROUND = 500


class Selector(NamedTuple):
    db: Reader
    facts: GroupFacts
    user_id: str
    filter: EventFilter
    ignored: Collection[str] = frozenset()

    def pick(self, rows: Sequence[EventRow]) -> list[EventRow]:
        """Those of `rows` (of one room) that are shown, in the same order."""
        rows = [row for row in rows if self._wanted(row)]
        if not rows:
            return []
        seen = visibility.visible(self.db, self.facts, self.user_id, rows)
        rows = [row for row in rows if row.nid in seen]
        hidden = self._idle_redactions(rows)
        rows = [row for row in rows if row.nid not in hidden]
        if self.filter.contains_url is None or not rows:
            return rows
        bodies = self.facts.bodies.get(self.db, rows)
        return [
            row
            for row in rows
            if row.nid in bodies and self.filter.allows_content(bodies[row.nid].pdu.get("content") or {})
        ]

    def _wanted(self, row: EventRow) -> bool:
        if row.sender in self.ignored and row.key_nid is None:
            return False
        return self.filter.passes_all or self.filter.allows(row.type, row.sender)

    def _idle_redactions(self, rows: Sequence[EventRow]) -> set[int]:
        """Redactions that are not in force: their target is not there, or they were not allowed (spec:
        "Handling redactions"). Clients would carry them out."""
        redactions = [row.nid for row in rows if row.type == REDACTION and row.redacted_by is None]
        if not redactions:
            return set()
        targets: dict[int, str] = {}
        for nid, (_, pdu) in timeline.bodies(self.db, redactions).items():
            content = pdu.get("content")
            redacts = content.get("redacts", pdu.get("redacts")) if isinstance(content, dict) else None
            if isinstance(redacts, str):
                targets[nid] = redacts
        untouched = timeline.unredacted(self.db, set(targets.values()))
        return {nid for nid, target in targets.items() if target in untouched}


class Latest(NamedTuple):
    """The end of a timeline."""

    rows: list[EventRow]
    """Oldest first."""
    limited: bool
    """There is more before them."""


def latest(select: Selector, room_nid: int, after: int, upto: int, limit: int) -> Latest:
    """The newest `limit` shown events with after < arrival ≤ upto."""
    found: list[EventRow] = []
    want = limit + 1
    for _ in range(MAX_ROUNDS):
        rows = timeline.latest(select.db, room_nid, after, upto, want)
        for row in select.pick(rows):
            if len(found) == limit:
                return Latest(found[::-1], limited=True)
            found.append(row)
        if len(rows) < want:
            return Latest(found[::-1], limited=False)
        upto = (rows[-1].arrival or 0) - 1
        want = min(2 * want + 20, MAX_ROUND)
    return Latest(found[::-1], limited=True)


@dataclass(frozen=True, slots=True)
class TimelineEnd:
    """What an answer of either sync shows of a room's timeline."""

    rows: list[EventRow]
    """Oldest first, without a gap among them."""
    limited: bool
    prev_batch: str

    def first_arrival(self, upto: int) -> int:
        """From here on the client has everything up to `upto`."""
        return (self.rows[0].arrival or 0) if self.rows else upto + 1


def timeline_end(select: Selector, room_nid: int, since: int | None, upto: int, limit: int) -> TimelineEnd:
    """The newest `limit` events for a client that has everything up to `since` (None: nothing)."""
    found = latest(select, room_nid, since or 0, upto, limit)
    rows, limited = found.rows, found.limited
    missing = timeline.gaps(select.db, room_nid)
    for place in reversed(range(len(rows))):
        if rows[place].nid in missing:
            # What is before it can't be joined to it seamlessly: the client fills the gap by /messages.
            rows, limited = rows[place:], True
            break
    if since is None and not limited:
        # Everything that came while we were in the room fits. Is there history from before, fetched later?
        limited = timeline.has_arrivals_before(select.db, room_nid, 1)
    first = rows[0].arrival if rows else None
    return TimelineEnd(rows, limited, str(SyncToken(upto if first is None else first - 1)))
