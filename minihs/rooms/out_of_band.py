# SPDX-License-Identifier: Apache-2.0
"""Memberships of our users in rooms that we are not in: invites and knocks that we hold, and what ends
them.
"""

from __future__ import annotations

import structlog

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.rooms.parts import Parts
from minihs.store import events, inbox, memberships, rooms
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.inbox import Staged

log = structlog.get_logger()


class OutOfBand:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def keep(
        self, event: Event, version: RoomVersion, *, stripped: list[JsonObject] | None = None
    ) -> None:
        """Store a membership event of a local user in a room that we are not in, and show it to the user."""
        now = self._parts.now()
        text = None if stripped is None else canonical.dumps(stripped).decode()

        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, event.room_id, version.version)
            nid = events.insert(tx, room_nid, event, outcome=Outcome.ACCEPTED, outlier=True, received_ts=now)
            memberships.set_out_of_band(
                tx,
                room_nid,
                event.room_id,
                event.state_key or "",
                event.membership or "leave",
                nid,
                our_name=self._parts.our_name,
                stripped=text,
            )

        await self._parts.db.write(write)

    async def take(self, staged: list[Staged]) -> None:
        """PDUs of a room that we are not in: a leave or ban that ends an invite or knock we hold counts, the rest is dropped.

        Who sent it can only be checked against what we hold: the user's own server, the inviter's, or (for
        a ban or kick) any server that signed as the sender; the spec allows believing it, since all it can
        do is end an invite.
        """
        for item in staged:
            await self._take_one(item)
        await self._parts.db.write(lambda tx: inbox.remove_all(tx, [item.seq for item in staged]))

    async def _take_one(self, item: Staged) -> None:
        room = rooms.get(self._parts.db.read, item.room_id)
        version = ROOM_VERSIONS.get(room.version or "") if room is not None else None
        if room is None or version is None:
            return
        event = Event.from_store(canonical.loads(item.json), version, item.event_id)
        user_id = event.state_key
        if (
            event.type != "m.room.member"
            or user_id is None
            or event.membership not in ("leave", "ban", "invite")
        ):
            return
        held = memberships.get(self._parts.db.read, room.room_nid, user_id)
        if held is None or held.membership not in ("invite", "knock"):
            return
        if event.membership == "invite" and held.membership != "knock":
            return
        before = events.get_nids(self._parts.db.read, [held.event_nid]).get(held.event_nid)
        senders = {event.sender, user_id} if before is None else {before.event.sender, user_id}
        allowed_hosts = {sender.partition(":")[2] for sender in senders}
        if held.membership == "knock":
            allowed_hosts.add(event.origin)  # any resident may refuse a knock
        if event.origin not in allowed_hosts:
            log.info("ignored the end of an invite by a stranger", room=item.room_id, sender=event.sender)
            return
        await self.keep(event, version)
