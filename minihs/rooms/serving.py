# SPDX-License-Identifier: Apache-2.0
"""What we tell other servers about the past of rooms: events, state, auth chains, history.

Who may ask: servers that are in the room; the room's server ACL decides first. /backfill and
/get_missing_events redact what the asker may not see; state and auth events are given whole. Spec:
server-server-api, "Retrieving events", "Backfilling and retrieving missing events".

A server that is out of the room may still ask about events at which it was in: that is how one that lacks
what came before the kick of its last user finds out that it was kicked. It is told nothing that was not its
to see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, forbidden, not_found
from minihs.matrix.redaction import redact
from minihs.rooms.acl import Acls
from minihs.rooms.answers import EventsAnswer, Slots
from minihs.rooms.parts import Parts
from minihs.store import event_json, events, history, memberships, partial, rooms
from minihs.store.database import Reader
from minihs.store.events import Outcome, StoredEvent

MAX_BACKFILL = 100
MAX_MISSING = 20
MAX_ASKED_AT, MAX_STATES_ASKED_AT = 20, 4
"""Events about which a server that is out of the room may ask at once, and different states before them: a
look at one costs 5 ms if many of its users were in the room."""
MAX_NEAREST = 50
"""Events next to a time that are looked at, to find one that the asker may see."""

UNABLE = "ORG.MATRIX.MSC3895_UNABLE_DUE_TO_PARTIAL_STATE"
"""The code of MSC3895 as other servers send it; the spec has none."""

type VisibleTo = Callable[[Reader, str, Sequence[int]], set[int]]
"""(reader, host, numbers of events of one room) → those that a user of that server may see."""


class Serving:
    def __init__(self, parts: Parts, acls: Acls, visible_to: VisibleTo) -> None:
        self._parts = parts
        self._acls = acls
        self._visible_to = visible_to
        self.slots = Slots()

    def event(self, origin: str, event_id: str) -> JsonObject:
        """One event, for a server in its room. Raises M_NOT_FOUND, M_FORBIDDEN."""
        stored = self._parts.graph.stored(event_id)
        if stored is None or stored.outcome is Outcome.REJECTED:
            raise not_found("There is no such event here.")
        self._require_in_room(origin, stored.event.room_id, at=[event_id])
        if not stored.outlier and not self._visible_to(self._parts.db.read, origin, [stored.nid]):
            return stored.event.redacted().json
        return stored.event.json

    async def state(self, origin: str, room_id: str, event_id: str) -> EventsAnswer:
        """The state before the event, and its auth chain, as whole events."""
        state_nids, chain = await self._state_nids(origin, room_id, event_id)
        return self._answer(origin, events={"pdus": state_nids, "auth_chain": chain})

    async def state_ids(self, origin: str, room_id: str, event_id: str) -> EventsAnswer:
        state_nids, chain = await self._state_nids(origin, room_id, event_id)
        return self._answer(origin, ids={"pdu_ids": state_nids, "auth_chain_ids": chain})

    async def _state_nids(self, origin: str, room_id: str, event_id: str) -> tuple[list[int], list[int]]:
        self._require_in_room(origin, room_id, at=[event_id])
        stored = self._of_room(room_id, event_id)
        if stored.outlier or not partial.has_whole_state(self._parts.db.read, stored.nid):
            raise not_found("The state at that event is not known here.")
        await self.slots.wait(origin)
        with self.slots.hold(origin):
            group = stored.before_group
            return await self._parts.db.scan(lambda db: event_json.state_and_chain(db, group))

    async def event_auth(self, origin: str, room_id: str, event_id: str) -> EventsAnswer:
        self._require_in_room(origin, room_id, at=[event_id])
        nid = self._of_room(room_id, event_id).nid
        await self.slots.wait(origin)
        with self.slots.hold(origin):
            chain = await self._parts.db.scan(lambda db: sorted(events.auth_chain(db, [nid])))
        return self._answer(origin, events={"auth_chain": chain})

    def _answer(
        self,
        origin: str,
        *,
        events: Mapping[str, list[int]] | None = None,
        ids: Mapping[str, list[int]] | None = None,
    ) -> EventsAnswer:
        return EventsAnswer(self._parts.db, self.slots, origin, events=events or {}, ids=ids or {})

    async def backfill(self, origin: str, room_id: str, event_ids: Sequence[str], limit: int) -> list[bytes]:
        """Events at and before the given ones, newest first, each as JSON."""
        room_nid = self._require_in_room(origin, room_id)
        limit = max(0, min(limit, MAX_BACKFILL))
        return await self._shown(
            origin, room_id, lambda db: history.walk_back(db, room_nid, event_ids, limit)
        )

    async def missing_events(
        self,
        origin: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int,
    ) -> list[bytes]:
        """Events between `earliest` and `latest`, neither included, the newest `limit`, oldest first."""
        room_nid = self._require_in_room(origin, room_id, at=latest)
        limit = max(0, min(limit, MAX_MISSING))
        newest_first = await self._shown(
            origin,
            room_id,
            lambda db: history.between(
                db, room_nid, earliest=earliest, latest=latest, limit=limit, min_depth=min_depth
            ),
        )
        return newest_first[::-1]

    async def _shown(self, origin: str, room_id: str, walk: Callable[[Reader], list[int]]) -> list[bytes]:
        """The events that a walk finds, redacted where the asker may not see them; if it is out of the room,
        without these. A thread walks and reads; what is shown whole is passed on as it is kept."""
        head = self._parts.head(room_id)
        version = head.version
        is_in = rooms.has_host(self._parts.db.read, head.room_nid, origin)

        def read(db: Reader) -> list[bytes]:
            nids = walk(db)
            visible = self._visible_to(db, origin, nids)
            if not is_in:
                nids = [nid for nid in nids if nid in visible]
            kept = event_json.by_nid(db, nids)
            return [
                kept[nid] if nid in visible else canonical.dumps(redact(canonical.loads(kept[nid]), version))
                for nid in nids
                if nid in kept
            ]

        return await self._parts.db.scan(read)

    async def nearest(self, origin: str, room_id: str, ts: int, *, forwards: bool) -> tuple[str, int]:
        """(event id, origin_server_ts) of the event at or after, or at or before, a time."""
        room_nid = self._require_in_room(origin, room_id)

        def read(db: Reader) -> StoredEvent | None:
            nids = history.nearest(db, room_nid, ts, forwards=forwards, limit=MAX_NEAREST)
            visible = self._visible_to(db, origin, nids)
            nearest = next((nid for nid in nids if nid in visible), None)
            return None if nearest is None else events.get_nids(db, [nearest]).get(nearest)

        found = await self._parts.db.scan(read)
        if found is not None:
            return found.event.event_id, found.event.origin_server_ts
        raise not_found("There is no event in that direction.")

    def extremities(self, origin: str, room_id: str) -> list[str]:
        self._require_in_room(origin, room_id)
        return sorted(self._parts.head(room_id).tips)

    def complexity(self, origin: str, room_id: str) -> float:
        """How large the room's state is, in the unit that Synapse made for it: 500 events."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:
            raise not_found("This server is not in the room.")
        self._acls.require(room_id, origin)
        if not rooms.has_host(self._parts.db.read, room.room_nid, origin) and not self._is_open(room_id):
            raise not_found("This server is not in the room.")  # as if: strangers need not know
        return round(memberships.count_current_state(self._parts.db.read, room.room_nid) / 500, 2)

    def _is_open(self, room_id: str) -> bool:
        """May anybody join or read?"""
        state = self._parts.head(room_id).state(self._parts.graph)
        rules = state.get(("m.room.join_rules", ""))
        visibility = state.get(("m.room.history_visibility", ""))
        return (rules is not None and rules.content.get("join_rule") == "public") or (
            visibility is not None and visibility.content.get("history_visibility") == "world_readable"
        )

    def _of_room(self, room_id: str, event_id: str) -> StoredEvent:
        stored = self._parts.graph.stored(event_id)
        if stored is None or stored.event.room_id != room_id or stored.outcome is Outcome.REJECTED:
            raise not_found("There is no such event in this room.")
        return stored

    def _require_in_room(self, origin: str, room_id: str, *, at: Sequence[str] = ()) -> int:
        """The room's number, if we and the asking server are in it, or it was before each of the events `at`.
        M_FORBIDDEN, or the code of MSC3895 where we can't tell yet."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:
            raise not_found("This server is not in the room.")
        self._acls.require(room_id, origin)
        if room.partial:
            raise MatrixError(403, UNABLE, "This server does not know all members of the room yet.")
        if not rooms.has_host(self._parts.db.read, room.room_nid, origin) and not self._was_in(
            origin, room_id, at
        ):
            raise forbidden("Your server is not in the room.")
        return room.room_nid

    def _was_in(self, origin: str, room_id: str, at: Sequence[str]) -> bool:
        """Was a user of the server joined before each of these events of the room?"""
        if not 0 < len(at) <= MAX_ASKED_AT:
            return False
        states: dict[int, int] = {}
        for event_id in at:
            stored = self._parts.graph.stored(event_id)
            if (
                stored is None
                or stored.event.room_id != room_id
                or stored.outcome is Outcome.REJECTED
                or stored.before_group is None
            ):
                return False
            states[stored.before_group] = stored.room_nid
        return len(states) <= MAX_STATES_ASKED_AT and all(
            memberships.was_host_in(self._parts.db.read, room_nid, group, origin)
            for group, room_nid in states.items()
        )
