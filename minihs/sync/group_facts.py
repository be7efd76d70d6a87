# SPDX-License-Identifier: Apache-2.0
"""The two facts of a state that decide who may see what: the history visibility, and what one user is in the
room.

A state group never changes, nor do these two facts of an event (redaction keeps both), so all answers are
kept. Going along a timeline, most events leave both facts as they were: then the state after an event is
answered from the state before it, without looking anything up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from minihs.store import ids, state, timeline
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow
from minihs.sync.bodies import Bodies

VISIBILITY = "m.room.history_visibility"
VISIBILITIES = frozenset({"world_readable", "shared", "invited", "joined"})
DEFAULT_VISIBILITY = "shared"

MAX_KEPT = 50_000
"""Facts kept of each kind; beyond that all are dropped and looked up again. About 100 bytes each."""


class GroupFacts:
    """Looks facts up and keeps them. Its dicts are only ever added to or swapped, so threads may share it."""

    def __init__(self) -> None:
        self._visibility_of_event: dict[int, str] = {}
        self._visibility_of_group: dict[int, str] = {}
        self._membership: dict[tuple[int, int], str | None] = {}
        self._keys: dict[tuple[str, str], int] = {}
        self._is_member_key: dict[int, bool] = {}
        self._room_type: dict[int, str | None] = {}
        self.bodies = Bodies()

    def visibility_key(self, db: Reader) -> int | None:
        """key_nid of ("m.room.history_visibility", ""); None: no room ever had one."""
        return self.key(db, VISIBILITY, "")

    def key(self, db: Reader, type: str, state_key: str) -> int | None:
        """key_nid of (type, state_key); a key once interned keeps its number."""
        known = self._room_for(self._keys)
        self._keys = known
        nid = known.get((type, state_key))
        if nid is None:
            nid = ids.key_nid(db, type, state_key)
            if nid is not None:
                known[type, state_key] = nid
        return nid

    def visibilities(self, db: Reader, rows: Iterable[EventRow]) -> dict[int, str]:
        """group → history visibility, for the states before and after these events."""
        key = self.visibility_key(db)
        known = self._room_for(self._visibility_of_group)
        self._visibility_of_group = known
        found: dict[int, int | None] = {}
        wanted: set[int] = set()
        for row in _along_the_dag(rows):
            before, after = row.before_group, row.after_group
            if before is not None:
                wanted.add(before)
                if before not in known and before not in found:
                    found[before] = None if key is None else state.lookup(db, before, (key,)).get(key)
            if after is None:
                continue
            wanted.add(after)
            if after in known or after in found:
                continue
            if row.key_nid == key and key is not None:
                found[after] = row.nid
            elif before is not None and row.outcome == 0:
                if before in found:
                    found[after] = found[before]
                else:
                    known[after] = known[before]
            else:
                found[after] = None if key is None else state.lookup(db, after, (key,)).get(key)
        values = self._values(db, {nid for nid in found.values() if nid is not None})
        for group, nid in found.items():
            known[group] = DEFAULT_VISIBILITY if nid is None else values[nid]
        return {group: known[group] for group in wanted}

    def memberships(self, db: Reader, key_nid: int | None, rows: Iterable[EventRow]) -> dict[int, str | None]:
        """group → the membership of the user whose member key this is, for the states before and after."""
        if key_nid is None:
            return {
                group: None
                for row in rows
                for group in (row.before_group, row.after_group)
                if group is not None
            }
        known = self._room_for(self._membership)
        self._membership = known
        found: dict[int, int | None] = {}
        wanted: set[int] = set()
        for row in _along_the_dag(rows):
            before, after = row.before_group, row.after_group
            if before is not None:
                wanted.add(before)
                if (before, key_nid) not in known and before not in found:
                    found[before] = state.lookup(db, before, (key_nid,)).get(key_nid)
            if after is None:
                continue
            wanted.add(after)
            if (after, key_nid) in known or after in found:
                continue
            if row.key_nid == key_nid:
                known[after, key_nid] = row.membership
            elif before is not None and row.outcome == 0:
                if before in found:
                    found[after] = found[before]
                else:
                    known[after, key_nid] = known[before, key_nid]
            else:
                found[after] = state.lookup(db, after, (key_nid,)).get(key_nid)
        members = timeline.rows_of(db, {nid for nid in found.values() if nid is not None})
        for group, nid in found.items():
            known[group, key_nid] = None if nid is None else members[nid].membership
        return {group: known[group, key_nid] for group in wanted}

    def visibility_of(self, db: Reader, group: int) -> str:
        """The history visibility in one state."""
        if group not in self._visibility_of_group:
            key = self.visibility_key(db)
            nid = None if key is None else state.lookup(db, group, (key,)).get(key)
            self._visibility_of_group[group] = (
                DEFAULT_VISIBILITY if nid is None else self._values(db, {nid})[nid]
            )
        return self._visibility_of_group[group]

    def member_keys(self, db: Reader, key_nids: Collection[int]) -> set[int]:
        """Those of these state keys that are of m.room.member."""
        known = self._room_for(self._is_member_key)
        self._is_member_key = known
        missing = [key for key in key_nids if key not in known]
        if missing:
            members = timeline.state_keys_of_type(db, missing, "m.room.member")
            for key in missing:
                known[key] = key in members
        return {key for key in key_nids if known[key]}

    def room_types(self, db: Reader, nids: Collection[int]) -> dict[int, str | None]:
        """nid of an m.room.create event → the room's type, which never changes."""
        known = self._room_for(self._room_type)
        self._room_type = known
        missing = [nid for nid in nids if nid not in known]
        if missing:
            bodies = timeline.bodies(db, missing)
            for nid in missing:
                content = bodies[nid][1].get("content") if nid in bodies else None
                value = content.get("type") if isinstance(content, dict) else None
                known[nid] = value if isinstance(value, str) else None
        return {nid: known[nid] for nid in nids}

    def value_of(self, db: Reader, nid: int) -> str:
        """What an m.room.history_visibility event says."""
        return self._values(db, {nid})[nid]

    def _values(self, db: Reader, nids: Collection[int]) -> dict[int, str]:
        known = self._room_for(self._visibility_of_event)
        self._visibility_of_event = known
        missing = [nid for nid in nids if nid not in known]
        if missing:
            for nid, (_, pdu) in timeline.bodies(db, missing).items():
                known[nid] = _visibility_in(pdu.get("content"))
        return {nid: known.get(nid, DEFAULT_VISIBILITY) for nid in nids}

    @staticmethod
    def _room_for[K, V](kept: dict[K, V]) -> dict[K, V]:
        return {} if len(kept) > MAX_KEPT else kept


def _visibility_in(content: object) -> str:
    value = content.get("history_visibility") if isinstance(content, dict) else None
    return value if isinstance(value, str) and value in VISIBILITIES else DEFAULT_VISIBILITY


def _along_the_dag(rows: Iterable[EventRow]) -> list[EventRow]:
    """Parents before children, so that what a state has from its parent is known by then."""
    return sorted(rows, key=lambda row: (row.topo or 0, row.arrival or 0))
