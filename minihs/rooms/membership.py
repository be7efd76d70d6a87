# SPDX-License-Identifier: Apache-2.0
"""Joining, leaving, knocking, inviting, kicking, banning: by our users, here or through other servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from minihs.matrix import canonical
from minihs.matrix.auth_rules import PowerLevels
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, forbidden, not_found
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.compose import build
from minihs.rooms.gaps import Gaps
from minihs.rooms.handshake import candidates, failure, own_member_event, read_template
from minihs.rooms.head import Head
from minihs.rooms.join_by_invite import JoinByInvite
from minihs.rooms.join_remote import RemoteJoin
from minihs.rooms.join_through import NEEDS_ANOTHER, JoinThrough
from minihs.rooms.out_of_band import OutOfBand
from minihs.rooms.parts import Parts
from minihs.rooms.publish import publish
from minihs.rooms.receive import Receiver
from minihs.rooms.shown_state import check_shown
from minihs.rooms.stripped import stripped_state
from minihs.store import events, memberships, rooms
from minihs.store.memberships import Membership

log = structlog.get_logger()

type ProfileOf = Callable[[str], JsonObject]
"""A local user's profile as the content of a member event has it: displayname, avatar_url."""


class Memberships:
    def __init__(
        self, parts: Parts, receiver: Receiver, out_of_band: OutOfBand, gaps: Gaps, profile_of: ProfileOf
    ) -> None:
        self._through = JoinThrough(parts, gaps)
        self._by_invite = JoinByInvite(parts, gaps, self._through)
        self._parts = parts
        self._receiver = receiver
        self._out_of_band = out_of_band
        self._profile_of = profile_of

    # -- join --------------------------------------------------------------------------------------

    async def join(self, user_id: str, room_id: str, hosts: Sequence[str], content: JsonObject) -> None:
        """Raises MatrixError. Where one of us is in the room already but not all of its members are known, it
        waits for them: they say who may come in."""
        if not self.is_joined(user_id, room_id):
            await self._parts.whole.wait(room_id)
        await self._by_invite.run(room_id, user_id, {**self._profile_of(user_id), **content})
        await self._parts.tasks.run(
            room_id, lambda: self._join(user_id, room_id, hosts, content), between=True
        )

    async def _join(self, user_id: str, room_id: str, hosts: Sequence[str], content: JsonObject) -> None:
        content = {**self._profile_of(user_id), **content}
        room = rooms.get(self._parts.db.read, room_id)
        held = None if room is None else memberships.get(self._parts.db.read, room.room_nid, user_id)
        if held is not None and held.membership == "join":
            return
        if room is not None and room.resident:
            await self._join_here(user_id, room_id, content)
            return
        inviter = self._inviter(held)
        via = candidates(
            self._parts,
            [inviter.partition(":")[2]] if inviter else [],
            hosts,
            [room_id.partition(":")[2]] if ":" in room_id else [],
            [] if held is None else stripped_hosts(held.stripped),
            [] if room is None else rooms.hosts(self._parts.db.read, room.room_nid),
        )
        via = via or candidates(self._parts, self._hosts_of_predecessor(user_id, room_id))
        if not via:
            raise not_found("This server knows of no server that is in the room.")
        left = set() if room is None else memberships.local_left(self._parts.db.read, room.room_nid)
        try:
            await RemoteJoin(self._parts, self._receiver.joining, room_id, user_id, content).run(via)
        finally:
            self._receiver.room_has_work(room_id)
        await self.leave_again(room_id, left - {user_id})

    async def leave_again(self, room_id: str, left: set[str]) -> None:
        """The server that we joined through may not have heard yet that others of us had left before. Theirs
        is the last word on that; otherwise they would be back in the room, and nobody would know why.
        """
        room = rooms.get(self._parts.db.read, room_id)
        joined = [] if room is None else memberships.local_joined(self._parts.db.read, room.room_nid)
        for user_id in sorted(left.intersection(joined)):
            try:
                await self._leave(user_id, room_id, None)
            except MatrixError as error:
                log.warning("a user could not leave again", room=room_id, user=user_id, error=str(error))

    def _hosts_of_predecessor(self, user_id: str, room_id: str) -> list[str]:
        """Who was in the room that this one replaces, by a tombstone in a room of the user's.

        First the server of who sent that: it is in the new room.
        """
        db = self._parts.db.read
        for held in memberships.of_user(db, user_id):
            event_id = memberships.current_state_event(db, held.room_nid, "m.room.tombstone", "")
            event = None if event_id is None else self._parts.graph.event(event_id)
            if event is not None and event.content.get("replacement_room") == room_id:
                return [event.origin, *rooms.hosts(db, held.room_nid)]
        return []

    async def _join_here(self, user_id: str, room_id: str, content: JsonObject) -> None:
        head = self._parts.head(room_id)
        content = {**content, "membership": "join"}
        content.pop("join_authorised_via_users_server", None)
        try:
            authoriser = self.authoriser_for(head, user_id)
        except MatrixError as error:
            if error.errcode not in NEEDS_ANOTHER:
                raise
            await self._through.run(room_id, user_id, content, error)
            return
        if authoriser is not None:
            content["join_authorised_via_users_server"] = authoriser
        await publish(
            self._parts, head, sender=user_id, type="m.room.member", state_key=user_id, content=content
        )

    def authoriser_for(self, head: Head, user_id: str) -> str | None:
        """For a restricted join: one of our users who may invite, if the joining user is in an allowed room.

        None where none is needed (the user is invited or joined, the rule is another). Raises M_FORBIDDEN or
        M_UNABLE_TO_AUTHORISE_JOIN and M_UNABLE_TO_GRANT_JOIN as the spec has them.
        """
        state = head.state(self._parts.graph)
        rules = state.get(("m.room.join_rules", ""))
        rule = rules.content.get("join_rule") if rules is not None else None
        restricted = (rule == "restricted" and head.version.restricted_join) or (
            rule == "knock_restricted" and head.version.knock_restricted
        )
        member = state.get(("m.room.member", user_id))
        if (
            not restricted
            or rules is None
            or (member is not None and member.membership in ("join", "invite"))
        ):
            return None
        allow = rules.content.get("allow")
        known = False
        for entry in allow if isinstance(allow, list) else []:
            if not isinstance(entry, dict) or entry.get("type") != "m.room_membership":
                continue
            allowed_room = rooms.get(self._parts.db.read, str(entry.get("room_id")))
            if allowed_room is None or not allowed_room.resident:
                continue
            held = memberships.get(self._parts.db.read, allowed_room.room_nid, user_id)
            if held is not None and held.membership == "join":
                return self._user_who_may_invite(head)
            known = known or not allowed_room.partial
        if known:
            raise forbidden("You are in none of the rooms that this room is open to.")
        raise MatrixError(400, "M_UNABLE_TO_AUTHORISE_JOIN", "This server can't tell whether you may join.")

    def _user_who_may_invite(self, head: Head) -> str:
        state = head.state(self._parts.graph)
        levels = PowerLevels.from_state(state)
        for user_id in memberships.local_joined(self._parts.db.read, head.room_nid):
            if levels.user(user_id) >= levels.invite:
                return user_id
        raise MatrixError(400, "M_UNABLE_TO_GRANT_JOIN", "No user of this server may let others in.")

    def _inviter(self, held: Membership | None) -> str | None:
        if held is None or held.membership != "invite":
            return None
        stored = events.get_nids(self._parts.db.read, [held.event_nid]).get(held.event_nid)
        return None if stored is None else stored.event.sender

    def is_joined(self, user_id: str, room_id: str) -> bool:
        room_nid = rooms.room_nid(self._parts.db.read, room_id)
        held = None if room_nid is None else memberships.get(self._parts.db.read, room_nid, user_id)
        return held is not None and held.membership == "join"

    # -- leave -------------------------------------------------------------------------------------

    async def leave(self, user_id: str, room_id: str, reason: str | None = None) -> None:
        await self._parts.tasks.run(room_id, lambda: self._leave(user_id, room_id, reason), between=True)

    async def _leave(self, user_id: str, room_id: str, reason: str | None) -> None:
        room = rooms.get(self._parts.db.read, room_id)
        held = None if room is None else memberships.get(self._parts.db.read, room.room_nid, user_id)
        if room is None or held is None:
            raise not_found("You are not in this room.")
        if held.membership == "leave":
            return
        content: JsonObject = {"membership": "leave"}
        if reason is not None:
            content["reason"] = reason
        if room.resident:
            head = self._parts.head(room_id)
            await publish(
                self._parts,
                head,
                sender=user_id,
                type="m.room.member",
                state_key=user_id,
                content=content,
                extra_hosts=self._rescinded_hosts(head, user_id),
            )
        elif held.membership in ("invite", "knock"):
            await self._leave_remotely(user_id, room_id, held, content)
        else:
            raise forbidden("You are not in this room.")

    async def _leave_remotely(
        self, user_id: str, room_id: str, held: Membership, content: JsonObject
    ) -> None:
        """Decline an invite, or take back a knock, through a resident. It succeeds here even if none
        answers.
        """
        stored = events.get_nids(self._parts.db.read, [held.event_nid]).get(held.event_nid)
        inviter = [] if stored is None or held.membership != "invite" else [stored.event.origin]
        known = rooms.hosts(self._parts.db.read, held.room_nid)
        via = candidates(
            self._parts,
            inviter,
            known,
            [room_id.partition(":")[2]] if ":" in room_id else [],
            stripped_hosts(held.stripped),
        )
        for host in via:
            try:
                answer = await self._parts.federation.make_leave(host, room_id, user_id)
                template = read_template(host, answer, room_id=room_id, user_id=user_id, membership="leave")
                event = own_member_event(self._parts, host, template, room_id, user_id, content)
                await self._parts.federation.send_leave(host, room_id, event.event_id, event.json)
            except FederationError as error:
                log.info("could not leave through a server", room=room_id, host=host, error=str(error))
            else:
                await self._out_of_band.keep(event)
                return
        if stored is not None:
            await self._out_of_band.keep(self._local_leave(stored.event, user_id, content))

    def _local_leave(self, invite: Event, user_id: str, content: JsonObject) -> Event:
        """A leave that only our own user ever sees: no resident could be told."""
        return build(
            self._parts,
            invite.version,
            invite.room_id,
            sender=user_id,
            type="m.room.member",
            state_key=user_id,
            content=content,
            depth=invite.depth + 1,
            prev_events=[invite.event_id],
            auth_events=[invite.event_id],
        )

    def _rescinded_hosts(self, head: Head, target: str) -> list[str]:
        """The target's server, when what ends is an invite or knock: it is not in the room and must be
        told.
        """
        member = head.state(self._parts.graph).get(("m.room.member", target))
        if member is None or member.membership not in ("invite", "knock"):
            return []
        return [target.partition(":")[2]]

    # -- knock -------------------------------------------------------------------------------------

    async def knock(self, user_id: str, room_id: str, hosts: Sequence[str], reason: str | None) -> None:
        await self._parts.whole.wait(room_id)
        await self._parts.tasks.run(room_id, lambda: self._knock(user_id, room_id, hosts, reason))

    async def _knock(self, user_id: str, room_id: str, hosts: Sequence[str], reason: str | None) -> None:
        content: JsonObject = {**self._profile_of(user_id), "membership": "knock"}
        if reason is not None:
            content["reason"] = reason
        room = rooms.get(self._parts.db.read, room_id)
        if room is not None and room.resident:
            head = self._parts.head(room_id)
            await publish(
                self._parts, head, sender=user_id, type="m.room.member", state_key=user_id, content=content
            )
            return
        via = candidates(self._parts, hosts, [room_id.partition(":")[2]] if ":" in room_id else [])
        if not via:
            raise not_found("This server knows of no server that is in the room.")
        errors: list[FederationError] = []
        for host in via:
            try:
                answer = await self._parts.federation.make_knock(
                    host, room_id, user_id, [name for name, version in ROOM_VERSIONS.items() if version.knock]
                )
                template = read_template(host, answer, room_id=room_id, user_id=user_id, membership="knock")
                event = own_member_event(self._parts, host, template, room_id, user_id, content)
                answer = await self._parts.federation.send_knock(host, room_id, event.event_id, event.json)
            except FederationError as error:
                errors.append(error)
            else:
                await self._out_of_band.keep(event, stripped=[])  # it counts; what it shows may need keys
                shown, wrong = await check_shown(
                    self._parts, template.version, room_id, answer.get("knock_room_state")
                )
                if wrong:
                    log.warning("left out what a server showed", room=room_id, host=host, wrong=wrong)
                await self._out_of_band.keep(event, stripped=stripped_state(shown))
                return
        raise failure(errors, "Knocking")

    # -- others' memberships -----------------------------------------------------------------------

    async def set_for(
        self, sender: str, room_id: str, target: str, membership: str, content: JsonObject
    ) -> str:
        """Kick, ban, unban: a membership event about somebody else (what they are now must be known); or a
        new profile of one's own."""
        if sender != target:
            await self._parts.whole.wait(room_id)
        return await self._parts.tasks.run(
            room_id, lambda: self._set_for(sender, room_id, target, membership, content), between=True
        )

    async def _set_for(
        self, sender: str, room_id: str, target: str, membership: str, content: JsonObject
    ) -> str:
        head = self.head_of_joined(sender, room_id)
        # Only a join through another server has that, and its signature with it.
        content = {key: value for key, value in content.items() if key != "join_authorised_via_users_server"}
        return await publish(
            self._parts,
            head,
            sender=sender,
            type="m.room.member",
            state_key=target,
            content={**content, "membership": membership},
            extra_hosts=self._rescinded_hosts(head, target),
        )

    def head_of_joined(self, sender: str, room_id: str) -> Head:
        room = rooms.get(self._parts.db.read, room_id)
        held = None if room is None else memberships.get(self._parts.db.read, room.room_nid, sender)
        if room is None or not room.resident or held is None or held.membership != "join":
            raise forbidden("You are not joined to this room.")
        return self._parts.head(room_id)

    async def forget(self, user_id: str, room_id: str) -> None:
        room = rooms.get(self._parts.db.read, room_id)
        held = None if room is None else memberships.get(self._parts.db.read, room.room_nid, user_id)
        if room is None or held is None:
            raise not_found("You were never in this room.")
        if held.membership not in ("leave", "ban"):
            raise MatrixError(400, "M_UNKNOWN", "Leave the room before you forget it.")
        room_nid = room.room_nid
        await self._parts.db.write(lambda tx: memberships.forget(tx, room_nid, user_id))


def stripped_hosts(stripped: str | None) -> list[str]:
    """Servers that senders of an invite's stripped state are on: they were in the room once."""
    if stripped is None:
        return []
    senders = [
        item.get("sender", "") for item in canonical.loads(stripped.encode()) if isinstance(item, dict)
    ]
    return [sender.partition(":")[2] for sender in senders if isinstance(sender, str) and ":" in sender]
