# SPDX-License-Identifier: Apache-2.0
"""Joining a room through another server: make_join, our own event, send_join, checking all that comes back.

The answer can hold the state of a room with 100,000 members. It stays on disk; events are decoded in
batches, verified, and remembered by their place in the file, so memory is bounded by the batch and an
index, never by the room. Nothing of it is stored until all of it is checked: then one commit, or none.

Where the server may leave out the members (`Parts.partial_joins`), it is asked to: rooms/partial_join.py.
Spec: server-server-api, "Joining Rooms".
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError, RemoteProtocolError
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.rooms.adoption import Adoption
from minihs.rooms.authorise import MissingAuthEvents, check_by_auth_events
from minihs.rooms.handshake import Template, countersigned, failure, own_member_event, read_template
from minihs.rooms.partial_join import has_what_is_critical, members_cited, servers_named
from minihs.rooms.parts import Parts
from minihs.rooms.ports import SpooledJoin
from minihs.store import rooms
from minihs.store.events import Outcome

log = structlog.get_logger()


class RemoteJoin:
    """One try to get a user into a room that we are not in. Runs in the room's task.

    `joining`: where to note that a join is under way, so that what other servers send meanwhile is kept.
    """

    def __init__(
        self, parts: Parts, joining: dict[str, str], room_id: str, user_id: str, content: JsonObject
    ) -> None:
        self._parts = parts
        self._joining = joining
        self._room_id = room_id
        self._user_id = user_id
        self._content = {
            key: value
            for key, value in content.items()
            if key not in ("membership", "join_authorised_via_users_server")
        }

    async def run(self, hosts: Sequence[str]) -> None:
        """Join through the first of the servers that lets us. Raises MatrixError."""
        errors: list[FederationError] = []
        for host in hosts:
            try:
                await self._join_through(host)
            except FederationError as error:
                log.info("could not join through a server", room=self._room_id, host=host, error=str(error))
                errors.append(error)
            else:
                return
            finally:
                self._joining.pop(self._room_id, None)
        raise failure(errors, "Joining the room")

    async def _join_through(self, host: str) -> None:
        template, event = await self._own_event(host)
        known = rooms.get(self._parts.db.read, self._room_id)
        if known is not None and known.state_group is not None and known.version != template.version.version:
            raise RemoteProtocolError(host, "the room is of another version than when we were in it")
        self._joining[self._room_id] = template.version.version
        log.info("joining a room", room=self._room_id, host=host, version=template.version.version)
        if not self._parts.partial_joins or not await self._is_in(host, template, event, omit_members=True):
            await self._is_in(host, template, event, omit_members=False)

    async def _is_in(self, host: str, template: Template, event: Event, *, omit_members: bool) -> bool:
        """False: the answer lacks more than members, so that the whole must be asked for."""
        async with self._parts.federation.send_join(
            host, self._room_id, event.event_id, event.json, omit_members=omit_members
        ) as spooled:
            if spooled.members_omitted and not omit_members:
                raise RemoteProtocolError(host, "left out the members unasked")
            event = await countersigned(self._parts, host, event, spooled.event)
            return await self._adopt(host, template.version, event, spooled)

    async def _own_event(self, host: str) -> tuple[Template, Event]:
        answer = await self._parts.federation.make_join(
            host, self._room_id, self._user_id, list(ROOM_VERSIONS)
        )
        template = read_template(
            host, answer, room_id=self._room_id, user_id=self._user_id, membership="join"
        )
        content = {**self._content, "membership": "join"}
        if template.authoriser is not None and template.version.restricted_join:
            content["join_authorised_via_users_server"] = template.authoriser
        return template, own_member_event(self._parts, host, template, self._room_id, self._user_id, content)

    async def _adopt(self, host: str, version: RoomVersion, event: Event, spooled: SpooledJoin) -> bool:
        adoption = Adoption(self._parts, self._room_id, version)
        await adoption.read(host, spooled.auth_chain, is_state=False)
        await adoption.read(host, spooled.state, is_state=True)
        await adoption.authorise()
        servers: list[str] = []
        if spooled.members_omitted:
            adoption.take_as_state(members_cited(adoption, event))
            servers = servers_named(spooled, self._parts.our_name)
            if not servers or not has_what_is_critical(adoption.state_ids()):
                log.info("a partial state is not enough to join by", room=self._room_id, host=host)
                return False
        state = adoption.state_map()
        create = state.get(("m.room.create", ""))
        if create is None:
            raise RemoteProtocolError(host, "the room's state has no valid create event")
        if create.content.get("room_version", "1") != version.version:
            raise RemoteProtocolError(host, "the room is not of the version that the server said")
        try:
            verdict = check_by_auth_events(adoption, event, create)
            check_auth(event, state)
        except (AuthError, MissingAuthEvents) as error:
            raise RemoteProtocolError(
                host, f"our join is not allowed by the state it sent: {error}"
            ) from error
        if verdict.outcome is not Outcome.ACCEPTED:
            raise RemoteProtocolError(host, f"our join is not allowed: {verdict.reason}")
        await adoption.promote(event, host if spooled.members_omitted else None, [host, *servers])
        log.info(
            "joined a room",
            room=self._room_id,
            host=host,
            events=adoption.size,
            partial=spooled.members_omitted,
        )
        return True
