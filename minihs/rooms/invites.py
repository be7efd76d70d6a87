# SPDX-License-Identifier: Apache-2.0
"""Invites: to users of other servers, and from them to ours (spec: server-server-api, "Inviting to a
room").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, forbidden, invalid_param, not_found
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError, RemoteRefused
from minihs.matrix.ids import domain_of, is_user_id
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.matrix.signatures import sign_event
from minihs.rooms.acl import Acls
from minihs.rooms.admission import Source, admit_one
from minihs.rooms.authorise import MissingAuthEvents
from minihs.rooms.compose import compose
from minihs.rooms.handshake import OUR_FAULTS, with_signature_of
from minihs.rooms.membership import Memberships
from minihs.rooms.out_of_band import OutOfBand
from minihs.rooms.parts import Parts
from minihs.rooms.placement import is_settled, missing_prevs, place_live
from minihs.rooms.policy import Policies, policy_server_of
from minihs.rooms.ports import LocalUsers
from minihs.rooms.receive import DEFER_FIRST_MS, Receiver
from minihs.rooms.shown_state import check_shown
from minihs.rooms.stripped import of_room, stripped_state
from minihs.rooms.transactions import check_inbox_has_room, to_stage
from minihs.store import inbox, rooms
from minihs.store.events import Outcome

log = structlog.get_logger()


class Invites:
    def __init__(
        self,
        parts: Parts,
        acls: Acls,
        receiver: Receiver,
        out_of_band: OutOfBand,
        members: Memberships,
        users: LocalUsers,
    ) -> None:
        self._parts = parts
        self._receiver = receiver
        self._acls = acls
        self._out_of_band = out_of_band
        self._members = members
        self._users = users
        self._expected: Counter[tuple[str, str]] = Counter()
        """(room, token) of third-party invites that we are having exchanged."""

    # -- ours to others ----------------------------------------------------------------------------

    async def invite(self, sender: str, room_id: str, target: str, content: JsonObject) -> str:
        """Returns the event id. Raises MatrixError; a refusal of the invited server is passed on."""
        if not is_user_id(target):
            raise invalid_param("That is no user id.")
        if self._members.is_joined(sender, room_id):
            await self._parts.whole.wait(room_id)  # they may be in the room, or banned
        if self._parts.is_ours(target):
            if not self._users.exists(target):
                raise not_found("There is no such user here.")
            self._users.check_may_invite(sender, target)
            return await self._members.set_for(
                sender, room_id, target, "invite", {**self._users.member_profile(target), **content}
            )
        # A job of its own: what the other server has signed is taken in even if nobody waits for it any more.
        return await self._parts.tasks.run(
            f"invite {target} to {room_id}", lambda: self._invite_remote(sender, room_id, target, content)
        )

    async def _invite_remote(self, sender: str, room_id: str, target: str, content: JsonObject) -> str:
        """The invited server signs the event before it becomes part of the room.

        The room goes on meanwhile: the invite is built on what is newest when it is made, and judged again
        when it comes back.
        """
        host = domain_of(target)
        if not self._acls.allows(room_id, host):
            raise forbidden("That user's server is denied by the room's server ACL.")
        event, version, stripped = await self._parts.tasks.run(
            room_id, lambda: self._draft(sender, room_id, target, content), between=True
        )
        policy = policy_server_of(self._parts.graph, self._parts.head(room_id))
        if policy is not None:
            event = await Policies(self._parts).sign_ours(policy, event)
        signed = await self._ask_to_sign(room_id, version, event, stripped, host)
        await self._parts.tasks.run(room_id, lambda: self._take_signed(room_id, signed, host), between=True)
        return signed.event_id

    async def _draft(
        self, sender: str, room_id: str, target: str, content: JsonObject
    ) -> tuple[Event, RoomVersion, list[JsonObject]]:
        """The invite as it would be sent now, with what its receiver is shown of the room. Not stored."""
        if "third_party_invite" in content:  # it may be another server's user who invited, and has left since
            head = self._parts.take_head(room_id)
        else:
            head = self._members.head_of_joined(sender, room_id)
        create = head.create_event(self._parts.graph)
        if create is not None and create.content.get("m.federate") is False:
            raise forbidden("The room is for users of its creator's server only.")
        batch = self._parts.batch(head)
        entry = compose(
            self._parts,
            batch,
            sender=sender,
            type="m.room.member",
            state_key=target,
            content={**content, "membership": "invite"},
        )
        batch.discard()
        head = self._parts.head(room_id)
        inviter = head.state(self._parts.graph).get(("m.room.member", sender))
        shown = of_room(self._parts.graph, head, [inviter] if inviter is not None else [])
        return entry.event, head.version, [item.json for item in shown]

    async def _ask_to_sign(
        self, room_id: str, version: RoomVersion, event: Event, stripped: list[JsonObject], host: str
    ) -> Event:
        try:
            answer = await self._parts.federation.invite(
                host, room_id, event.event_id, version.version, event.json, stripped
            )
        except RemoteRefused as error:
            if error.status not in (400, 403, 404) or error.errcode in OUR_FAULTS:
                raise MatrixError(
                    502, "M_UNKNOWN", f"The user's server refused the invite: {error}"
                ) from error
            raise MatrixError(
                error.status, error.errcode, error.error or "The user's server refused the invite."
            ) from error
        except FederationError as error:
            raise MatrixError(502, "M_UNKNOWN", f"The user's server could not be reached: {error}") from error
        try:
            signed = with_signature_of(event, host, answer)
            return await admit_one(
                signed.json,
                version,
                room_id,
                Source.COUNTERSIGNED,
                keys=self._parts.keys,
                runtime=self._parts.runtime,
            )
        except (ValueError, MatrixError) as error:
            raise MatrixError(502, "M_UNKNOWN", "The user's server did not sign the invite.") from error

    async def _take_signed(self, room_id: str, event: Event, host: str) -> None:
        """Make the signed invite part of the room and send it to the servers that are in it."""
        batch = self._parts.batch(self._parts.take_head(room_id))
        try:
            entry = place_live(batch, event, self._parts.now(), Source.COUNTERSIGNED)
            if entry.outcome is not Outcome.ACCEPTED:
                raise forbidden(f"The room changed meanwhile: {entry.reason}")
            hosts = rooms.hosts(self._parts.db.read, batch.head.room_nid)
            entry.hosts = set(hosts) - {self._parts.our_name}
            await batch.commit()
        except BaseException:
            batch.discard()
            raise

    # -- others' to ours ---------------------------------------------------------------------------

    async def receive(
        self, origin: str, room_id: str, event_id: str, version_name: str, pdu: object, shown: object
    ) -> JsonObject:
        """PUT /invite: check everything, sign, keep. Returns the signed event. Raises MatrixError.

        We sign only what is in truth an invite of one of our users by a user of the asking server.
        """
        version = ROOM_VERSIONS.get(version_name)
        if version is None:
            raise MatrixError(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                "This server does not know the room's version.",
                room_version=version_name,
            )
        self._acls.require(room_id, origin)
        self._check_version(room_id, version)
        event = await admit_one(
            pdu, version, room_id, Source.INVITE, keys=self._parts.keys, runtime=self._parts.runtime
        )
        target = self._check(origin, event_id, event)
        may_be_shown, wrong = await check_shown(self._parts, version, room_id, shown)
        if wrong:
            raise invalid_param(f"invite_room_state does not show the room: {'; '.join(wrong)}"[:1000])
        signed = Event.from_store(
            sign_event(event.json, version, self._parts.our_name, self._parts.signing_key),
            version,
            event.event_id,
        )
        await self._parts.tasks.run(
            room_id, lambda: self._keep(origin, signed, target, stripped_state(may_be_shown)), between=True
        )
        return signed.json

    def version_of_old_form(self, room_id: str) -> str:
        """An invite in the old form is to a room of version 1 or 2 and does not say which. They differ in
        nothing here, but it must be that of a room we know."""
        room = rooms.get(self._parts.db.read, room_id)
        return "2" if room is not None and room.version == "2" else "1"

    @contextmanager
    def expect_third_party(self, room_id: str, token: str) -> Iterator[None]:
        """Meanwhile a resident that we asked may send us the invite that redeems this token."""
        self._expected[room_id, token] += 1
        try:
            yield
        finally:
            self._expected[room_id, token] -= 1
            if not self._expected[room_id, token]:
                del self._expected[room_id, token]

    def _is_expected(self, event: Event) -> bool:
        invite = event.content.get("third_party_invite")
        signed = invite.get("signed") if isinstance(invite, dict) else None
        token = signed.get("token") if isinstance(signed, dict) else None
        return isinstance(token, str) and (event.room_id, token) in self._expected

    def _check_version(self, room_id: str, version: RoomVersion) -> None:
        """Of a room that we are or were in we know the version."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is not None and room.state_group is not None and room.version != version.version:
            raise invalid_param("The room is of another version.")

    def _check(self, origin: str, event_id: str, event: Event) -> str:
        if event.event_id != event_id:
            raise invalid_param("The event id of the path is not that of the event.")
        if event.type != "m.room.member" or event.membership != "invite":
            raise invalid_param("The event is no invite.")
        if event.origin != origin and not self._is_expected(event):
            raise invalid_param("The invite's sender is not a user of the asking server.")
        if not is_user_id(event.state_key) or not self._parts.is_ours(event.state_key or ""):
            raise invalid_param("The invited user is not one of this server.")
        target = event.state_key or ""
        if not self._users.exists(target):
            raise not_found("There is no such user here.")
        self._users.check_may_invite(event.sender, target)
        return target

    async def _keep(self, origin: str, event: Event, target: str, stripped: list[JsonObject]) -> None:
        room = rooms.get(self._parts.db.read, event.room_id)
        if room is None or not room.resident:
            await self._out_of_band.keep(event, stripped=stripped)
        else:
            await self._take_into_room(origin, event)

    async def _take_into_room(self, origin: str, event: Event) -> None:
        """Others of us are in the room. Show it at once if it can be; should it be against the rules as we
        see them, refuse it.

        What we see is not the last word on an invite that is built upon something we have not heard of, such
        as the end of a ban. That waits like a PDU whose parents are missing.
        """
        graph = self._parts.graph
        head = self._parts.take_head(event.room_id)
        batch = self._parts.batch(head)
        if head.partial is not None or missing_prevs(batch, event):
            await self._let_wait(origin, event)
            return
        try:
            check_auth(event, head.state(graph))
            if is_settled(graph, event):
                outcome = graph.outcome(event.event_id)
            else:
                outcome = place_live(batch, event, self._parts.now(), Source.TRANSACTION).outcome
            if outcome is not Outcome.ACCEPTED:
                raise forbidden("The invite is not allowed.")
            await batch.commit()
        except AuthError as error:
            raise forbidden(f"The invite is not allowed: {error}") from error
        except MissingAuthEvents:
            await self._let_wait(origin, event)
        except BaseException:
            batch.discard()
            raise

    async def _let_wait(self, origin: str, event: Event) -> None:
        check_inbox_has_room(self._parts, origin, 1)
        now = self._parts.now()
        # Not at once: its server makes it part of the room only when it has our signature. Before that nobody
        # can be asked for what came before it; mostly that is on its way.
        await self._parts.db.write(
            lambda tx: inbox.stage_pdus(tx, [to_stage(event)], origin, now, not_before=now + DEFER_FIRST_MS)
        )
        self._receiver.look_again()
