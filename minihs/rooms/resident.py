# SPDX-License-Identifier: Apache-2.0
"""Being the resident server: make and send for joins, leaves and knocks of other servers' users.

What is handed in must be what the path says, from the server that asks, allowed by the room; then it is
part of the room and we send it on to the other servers (spec: server-server-api, "Joining", "Leaving" and
"Knocking rooms").
"""

from __future__ import annotations

from collections.abc import Sequence

from minihs.matrix.auth_rules import AuthError, auth_types_for, check_auth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param
from minihs.matrix.event import Event, EventError
from minihs.matrix.ids import domain_of, is_user_id
from minihs.matrix.signatures import sign_event
from minihs.rooms.acl import Acls
from minihs.rooms.admission import Source, admit_one
from minihs.rooms.answers import EventsAnswer, Slots
from minihs.rooms.compose import build
from minihs.rooms.gaps import Defer, Gaps
from minihs.rooms.head import Head
from minihs.rooms.membership import Memberships
from minihs.rooms.parts import Parts
from minihs.rooms.placement import has_taken_id, is_settled
from minihs.rooms.stripped import of_room
from minihs.rooms.ties import tie_all
from minihs.store import event_json, rooms
from minihs.store.database import Reader
from minihs.store.events import Outcome, StoredEvent

MAX_HEROES = 5


class Resident:
    def __init__(self, parts: Parts, acls: Acls, gaps: Gaps, members: Memberships, slots: Slots) -> None:
        self._slots = slots
        self._parts = parts
        self._acls = acls
        self._gaps = gaps
        self._members = members

    # -- make --------------------------------------------------------------------------------------

    async def make(
        self, origin: str, room_id: str, user_id: str, membership: str, versions: Sequence[str] | None
    ) -> JsonObject:
        """The answer to make_join, make_leave or make_knock. Raises MatrixError."""
        if not is_user_id(user_id):
            raise invalid_param("That is no user id.")
        if domain_of(user_id) != origin:
            raise forbidden("A server asks for its own users only.")
        head = self._whole_head(room_id)
        self._acls.require(room_id, origin)
        if versions is not None and head.version.version not in versions:
            raise MatrixError(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                "Your server does not support this room's version.",
                room_version=head.version.version,
            )
        if membership == "knock" and not head.version.knock:
            raise forbidden("Rooms of this version can't be knocked on.")
        content: JsonObject = {"membership": membership}
        if membership == "join":
            authoriser = self._members.authoriser_for(head, user_id)
            if authoriser is not None:
                content["join_authorised_via_users_server"] = authoriser
        template = self._template(head, user_id, content)
        try:
            check_auth(template, head.state(self._parts.graph))
        except AuthError as error:
            raise forbidden(f"The room's rules do not allow that: {error}") from error
        unsigned = {
            key: value
            for key, value in template.json.items()
            if key not in ("hashes", "signatures", "event_id")
        }
        unsigned["origin"] = self._parts.our_name  # no part of an event any more, yet required of a template
        return {"event": unsigned, "room_version": head.version.version}

    def _whole_head(self, room_id: str) -> Head:
        """Raises M_NOT_FOUND, as if we weren't in the room, while we don't know who else is: others can tell
        who may come and go."""
        head = self._parts.head(room_id)
        if head.partial is not None:
            raise MatrixError(404, "M_NOT_FOUND", "This server does not know all members of the room yet.")
        return head

    def _template(self, head: Head, user_id: str, content: JsonObject) -> Event:
        tips = head.newest()
        before = head.state_after(self._parts.graph, tips)
        types = auth_types_for(
            head.version, type="m.room.member", sender=user_id, state_key=user_id, content=content
        )
        auth_ids = [
            event_id for key in types if (event_id := self._parts.graph.lookup(before, key)) is not None
        ]
        return build(
            self._parts,
            head.version,
            head.room_id,
            sender=user_id,
            type="m.room.member",
            content=content,
            state_key=user_id,
            depth=max((tip.depth for tip in tips), default=0) + 1,
            prev_events=[tip.event_id for tip in tips],
            auth_events=auth_ids,
        )

    # -- send --------------------------------------------------------------------------------------

    async def send_join(
        self, origin: str, room_id: str, event_id: str, pdu: object, *, omit_members: bool = False
    ) -> EventsAnswer:
        await self._slots.wait(origin)  # before the join counts: afterwards there is no refusing
        event = await self._handed_in(origin, room_id, event_id, pdu, "join")
        with self._slots.hold(origin):
            hosts, stored = await self._parts.tasks.run(room_id, lambda: self._send_join(origin, event))
            return await self._join_answer(origin, stored, hosts, omit_members=omit_members)

    async def _send_join(self, origin: str, event: Event) -> tuple[list[str], StoredEvent]:
        """The servers that were in the room before, and the join with its place."""
        hosts = rooms.hosts(self._parts.db.read, self._parts.head(event.room_id).room_nid)
        stored = await self._take(origin, event)
        await tie_all(self._parts, event.room_id)
        return hosts, stored

    async def _join_answer(
        self, origin: str, stored: StoredEvent, hosts: list[str], *, omit_members: bool
    ) -> EventsAnswer:
        """The state before the join and its auth chain. What `omit_members` leaves out are memberships, which
        are nearly all of a large room, but for those that a room without a name is called by (spec: PUT
        /send_join)."""
        group, joining = stored.before_group, stored.event.sender

        def read(db: Reader) -> tuple[list[int], list[int]]:
            if not omit_members:
                return event_json.state_and_chain(db, group, [stored.nid])
            heroes = event_json.heroes(db, group, stored.room_nid, joining, MAX_HEROES)
            return event_json.state_without_members(db, group, heroes, [stored.nid])

        state, chain = await self._parts.db.scan(read)
        fields: JsonObject = {
            "origin": self._parts.our_name,
            "members_omitted": omit_members,
            "event": stored.event.json,
        }
        if omit_members:
            fields["servers_in_room"] = hosts
        lists = {"state": state, "auth_chain": chain}
        return EventsAnswer(self._parts.db, self._slots, origin, fields, lists)

    async def send_leave(self, origin: str, room_id: str, event_id: str, pdu: object) -> None:
        event = await self._handed_in(origin, room_id, event_id, pdu, "leave")
        await self._parts.tasks.run(room_id, lambda: self._take(origin, event))

    async def send_knock(self, origin: str, room_id: str, event_id: str, pdu: object) -> JsonObject:
        event = await self._handed_in(origin, room_id, event_id, pdu, "knock")
        if not event.version.knock:
            raise forbidden("Rooms of this version can't be knocked on.")
        await self._parts.tasks.run(room_id, lambda: self._take(origin, event))
        head = self._parts.head(room_id)
        return {"knock_room_state": [item.json for item in of_room(self._parts.graph, head, [])]}

    async def _handed_in(
        self, origin: str, room_id: str, event_id: str, pdu: object, membership: str
    ) -> Event:
        """The event after all checks that need no state. Raises MatrixError."""
        head = self._whole_head(room_id)
        self._acls.require(room_id, origin)
        if not isinstance(pdu, dict):
            raise bad_json("The body must be an event.")
        if membership == "join":
            pdu = self._countersign(head, pdu)
        event = await admit_one(
            pdu,
            head.version,
            room_id,
            Source.MEMBERSHIP,
            keys=self._parts.keys,
            runtime=self._parts.runtime,
        )
        if event.event_id != event_id:
            raise invalid_param("The event id of the path is not that of the event.")
        if event.type != "m.room.member" or event.membership != membership:
            raise invalid_param(f"The event is no {membership}.")
        if event.sender != event.state_key:
            raise invalid_param("The event is about somebody else than its sender.")
        if event.origin != origin:
            raise invalid_param("A server hands in events of its own users only.")
        return event

    def _countersign(self, head: Head, pdu: JsonObject) -> JsonObject:
        """Where one of our users vouches for a restricted join, our signature has to be on it, or it is not
        rightly signed. It leaves this server only with an event that passed all checks.
        """
        content = pdu.get("content")
        authoriser = content.get("join_authorised_via_users_server") if isinstance(content, dict) else None
        if not isinstance(authoriser, str) or not self._parts.is_ours(authoriser):
            return pdu
        sender = pdu.get("sender")
        if not head.version.restricted_join or not is_user_id(sender):
            return pdu
        self._members.authoriser_for(head, sender)  # raises if they may not be let in
        try:
            event = Event.from_wire(pdu, head.version)
        except EventError as error:
            raise bad_json(f"The event is not valid: {error}") from error
        return sign_event(event.json, head.version, self._parts.our_name, self._parts.signing_key)

    async def _take(self, origin: str, event: Event) -> StoredEvent:
        """Make the event part of the room and send it on. Returns it with its place."""
        graph = self._parts.graph
        if has_taken_id(graph, event):
            raise forbidden("Another event has that id.")
        if not is_settled(graph, event):
            try:
                async with self._gaps.taking(event, origin, Source.MEMBERSHIP) as batch:
                    batch.send_on(event, but=origin)
            except Defer as error:
                raise forbidden(f"The event's parents are not known here: {error}") from error
        stored = graph.stored(event.event_id)
        if stored is None or stored.outlier or stored.outcome is not Outcome.ACCEPTED:
            reason = stored.reason if stored is not None else None
            raise forbidden(f"The room's rules do not allow that: {reason}")
        return stored
