# SPDX-License-Identifier: Apache-2.0
"""What we tell other servers about the past of rooms: events, state, auth chains, history.

Who may ask: servers that are in the room (and, where history is public, were); the room's server ACL
decides first. /backfill and /get_missing_events redact what the asker may not see; state and auth events
are given whole. Spec: server-server-api, "Retrieving events", "Backfilling and retrieving missing events".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import forbidden, not_found
from minihs.matrix.event import Event
from minihs.rooms.acl import Acls
from minihs.rooms.parts import Parts
from minihs.store import events, history, rooms
from minihs.store.events import Outcome, StoredEvent

MAX_BACKFILL = 100
MAX_MISSING = 20

type VisibleTo = Callable[[str, Sequence[StoredEvent]], set[str]]
"""(host, events of one room) → ids of those that a user of that server may see."""


class Serving:
    def __init__(self, parts: Parts, acls: Acls, visible_to: VisibleTo) -> None:
        self._parts = parts
        self._acls = acls
        self._visible_to = visible_to

    def event(self, origin: str, event_id: str) -> JsonObject:
        """One event, for a server in its room. Raises M_NOT_FOUND, M_FORBIDDEN."""
        stored = self._parts.graph.stored(event_id)
        if stored is None or stored.outcome is Outcome.REJECTED:
            raise not_found("There is no such event here.")
        self._require_in_room(origin, stored.event.room_id)
        if not stored.outlier and event_id not in self._visible_to(origin, [stored]):
            return stored.event.redacted().json
        return stored.event.json

    def state(self, origin: str, room_id: str, event_id: str) -> tuple[list[JsonObject], list[JsonObject]]:
        """(state before the event, its auth chain), whole events."""
        state_nids, chain = self._state_nids(origin, room_id, event_id)
        found = events.get_nids(self._parts.db.read, [*state_nids, *chain])
        return [found[nid].event.json for nid in state_nids], [
            found[nid].event.json for nid in chain if nid in found
        ]

    def state_ids(self, origin: str, room_id: str, event_id: str) -> tuple[list[str], list[str]]:
        state_nids, chain = self._state_nids(origin, room_id, event_id)
        names = events.ids_of(self._parts.db.read, [*state_nids, *chain])
        return [names[nid] for nid in state_nids], [names[nid] for nid in chain]

    def _state_nids(self, origin: str, room_id: str, event_id: str) -> tuple[list[int], list[int]]:
        self._require_in_room(origin, room_id)
        stored = self._of_room(room_id, event_id)
        if stored.outlier:
            raise not_found("The state at that event is not known here.")
        state_nids = (
            [] if stored.before_group is None else self._parts.graph.group_events(stored.before_group)
        )
        return state_nids, sorted(events.auth_chain(self._parts.db.read, state_nids))

    def event_auth(self, origin: str, room_id: str, event_id: str) -> list[JsonObject]:
        self._require_in_room(origin, room_id)
        stored = self._of_room(room_id, event_id)
        chain = events.auth_chain(self._parts.db.read, [stored.nid])
        return [item.event.json for item in events.get_nids(self._parts.db.read, chain).values()]

    def backfill(self, origin: str, room_id: str, event_ids: Sequence[str], limit: int) -> list[JsonObject]:
        """Events at and before the given ones, newest first."""
        room_nid = self._require_in_room(origin, room_id)
        limit = max(0, min(limit, MAX_BACKFILL))
        nids = history.walk_back(self._parts.db.read, room_nid, event_ids, limit)
        return self._shown(origin, nids)

    def missing_events(
        self,
        origin: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int,
    ) -> list[JsonObject]:
        """Events between `earliest` and `latest`, neither included, the newest `limit`, oldest first."""
        room_nid = self._require_in_room(origin, room_id)
        limit = max(0, min(limit, MAX_MISSING))
        nids = history.between(
            self._parts.db.read, room_nid, earliest=earliest, latest=latest, limit=limit, min_depth=min_depth
        )
        return list(reversed(self._shown(origin, nids)))

    def _shown(self, origin: str, nids: Sequence[int]) -> list[JsonObject]:
        found = events.get_nids(self._parts.db.read, nids)
        items = [found[nid] for nid in nids if nid in found]
        visible = self._visible_to(origin, items)
        shown: list[Event] = [
            item.event if item.event.event_id in visible else item.event.redacted() for item in items
        ]
        return [event.json for event in shown]

    def _of_room(self, room_id: str, event_id: str) -> StoredEvent:
        stored = self._parts.graph.stored(event_id)
        if stored is None or stored.event.room_id != room_id or stored.outcome is Outcome.REJECTED:
            raise not_found("There is no such event in this room.")
        return stored

    def _require_in_room(self, origin: str, room_id: str) -> int:
        """The room's number, if we and the asking server are in it."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:
            raise not_found("This server is not in the room.")
        self._acls.require(room_id, origin)
        if not rooms.has_host(self._parts.db.read, room.room_nid, origin):
            raise forbidden("Your server is not in the room.")
        return room.room_nid
