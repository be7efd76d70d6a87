# SPDX-License-Identifier: Apache-2.0
"""Server ACLs of rooms, compiled once per m.room.server_acl event (spec: "Server Access Control Lists")."""

from __future__ import annotations

from minihs.matrix.acl import ServerAcl
from minihs.matrix.errors import forbidden
from minihs.rooms.graph import Graph
from minihs.store import memberships, rooms
from minihs.store.byte_cache import ByteCache
from minihs.store.database import Reader


class Acls:
    def __init__(self, db: Reader, graph: Graph) -> None:
        self._db = db
        self._graph = graph
        self._compiled: ByteCache[str, ServerAcl] = ByteCache(2 * 1024 * 1024)

    def allows(self, room_id: str, host: str) -> bool:
        """May this server take part in the room, by its current state?"""
        room_nid = rooms.room_nid(self._db, room_id)
        if room_nid is None:
            return True
        event_id = memberships.current_state_event(self._db, room_nid, "m.room.server_acl", "")
        if event_id is None:
            return True
        acl = self._compiled.get(event_id)
        if acl is None:
            event = self._graph.event(event_id)
            if event is None:
                return True
            acl = ServerAcl.from_content(event.content)
            self._compiled.put(event_id, acl, 200 + 3 * len(str(event.content)))
        return acl.allows(host)

    def require(self, room_id: str, host: str) -> None:
        """Raises M_FORBIDDEN."""
        if not self.allows(room_id, host):
            raise forbidden("This server is denied by the room's server ACL.")
