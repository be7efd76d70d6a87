# SPDX-License-Identifier: Apache-2.0
"""Memberships of our users in rooms that we are not in: invites and knocks that we hold, and what ends
them.
"""

from __future__ import annotations

import structlog

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SignatureError, verify_event_signature
from minihs.rooms.parts import Parts
from minihs.store import events, inbox, memberships, new_events, rooms
from minihs.store.database import Tx
from minihs.store.events import Outcome
from minihs.store.inbox import Staged
from minihs.store.memberships import Membership
from minihs.store.new_events import NewEvent
from minihs.store.rooms import Room

log = structlog.get_logger()


class OutOfBand:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def keep(self, event: Event, *, stripped: list[JsonObject] | None = None) -> None:
        """Store a membership event of a local user in a room that we are not in, and show it to the user."""
        now = self._parts.now()
        text = None if stripped is None else canonical.dumps(stripped).decode()
        version = event.version.version

        def write(tx: Tx) -> None:
            room_nid = rooms.intern(tx, event.room_id, version)
            # The version is what the other server says: it must not become that of a room that others
            # of us are invited to as well.
            known = rooms.version(tx, room_nid)
            new = NewEvent(
                event, Outcome.ACCEPTED, now, outlier=True, version=version if version != known else None
            )
            nid = new_events.insert(tx, room_nid, new)
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
        self._parts.graph.forget(event.event_id)

    async def take(self, staged: list[Staged]) -> None:
        """PDUs of a room that we are not in: a leave or ban that ends an invite or knock we hold counts, and
        an invite that came while we were still in the room. The rest is dropped.

        Whether its sender may do that can't be checked, only that it comes from a server that was part of the
        matter: the user's own, the inviter's, or (for a knock, which all residents got) any. All it can do is
        end an invite.
        """
        for item in staged:
            await self._take_one(item)
        await self._parts.db.write(lambda tx: inbox.remove_all(tx, [item.seq for item in staged]))

    async def _take_one(self, item: Staged) -> None:
        room = rooms.get(self._parts.db.read, item.room_id)
        pdu = canonical.loads(item.json)
        user_id = pdu.get("state_key")
        if room is None or pdu["type"] != "m.room.member" or user_id is None:
            return
        held = memberships.get(self._parts.db.read, room.room_nid, user_id)
        if held is None or held.membership not in ("invite", "knock"):
            if held is None or not self._has_left_since(user_id, held, item):
                await self._take_invite(item, room, pdu)
            return
        before = events.get_nids(self._parts.db.read, [held.event_nid]).get(held.event_nid)
        if before is None:
            return
        event = Event.from_store(pdu, before.event.version, item.event_id)
        if event.membership not in ("leave", "ban"):
            return
        hosts = {before.event.origin, self._parts.our_name}
        if held.membership == "invite" and event.origin not in hosts:
            log.info("ignored the end of an invite by a stranger", room=item.room_id, sender=event.sender)
            return
        await self.keep(event)

    def _has_left_since(self, user_id: str, held: Membership, invite: Staged) -> bool:
        """Of their own will: such a user is not asked again."""
        left = events.get_nids(self._parts.db.read, [held.event_nid]).get(held.event_nid)
        return left is not None and left.event.sender == user_id and left.received_ts >= invite.received_ts

    async def _take_invite(self, item: Staged, room: Room, pdu: JsonObject) -> None:
        """One that we have signed, of a user of ours, and that waited for what it is built upon."""
        version = ROOM_VERSIONS.get(room.version or "")
        if version is None or not self._parts.is_ours(pdu["state_key"]):
            return
        event, key = Event.from_store(pdu, version, item.event_id), self._parts.signing_key
        if event.membership != "invite":
            return
        try:
            verify_event_signature(event, self._parts.our_name, key.key_id, key.verify_key)
        except SignatureError:
            return
        await self.keep(event)
