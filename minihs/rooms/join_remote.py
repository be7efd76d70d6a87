# SPDX-License-Identifier: Apache-2.0
"""Joining a room through another server: make_join, our own event, send_join, and checking all that comes back.

The answer can hold the state of a room with 100,000 members. It stays on disk; events are decoded in
batches, verified, and remembered by their place in the file, so memory is bounded by the batch and an
index, never by the room. Nothing of it is stored until all of it is checked: then one commit, or none.
Spec: server-server-api, "Joining Rooms".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError, RemoteProtocolError
from minihs.matrix.room_versions import ROOM_VERSIONS, RoomVersion
from minihs.rooms.admission import Refused, admit
from minihs.rooms.adoption import Adoption
from minihs.rooms.handshake import Template, failure, own_member_event, read_template
from minihs.rooms.parts import Parts
from minihs.rooms.ports import SpooledJoin

log = structlog.get_logger()


class RemoteJoin:
    """One try to get a user into a room that we are not in. Runs in the room's task."""

    def __init__(self, parts: Parts, room_id: str, user_id: str, content: JsonObject) -> None:
        self._parts = parts
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
        raise failure(errors, "Joining the room")

    async def _join_through(self, host: str) -> None:
        answer = await self._parts.federation.make_join(
            host, self._room_id, self._user_id, list(ROOM_VERSIONS)
        )
        template = read_template(
            host, answer, room_id=self._room_id, user_id=self._user_id, membership="join"
        )
        content = {**self._content, "membership": "join"}
        if template.authoriser is not None and template.version.restricted_join:
            content["join_authorised_via_users_server"] = template.authoriser
        event = own_member_event(self._parts, template, self._room_id, self._user_id, content)
        log.info("joining a room", room=self._room_id, host=host, version=template.version.version)
        async with self._parts.federation.send_join(
            host, self._room_id, event.event_id, event.json
        ) as spooled:
            event = await self._countersigned(host, event, spooled.event, template)
            await self._adopt(host, template.version, event, spooled)

    async def _countersigned(
        self, host: str, event: Event, returned: JsonObject | None, template: Template
    ) -> Event:
        """Our event with the signature of the server that vouches for us, where one is needed."""
        if returned is None or "join_authorised_via_users_server" not in event.content:
            return event
        signatures = returned.get("signatures")
        if not isinstance(signatures, dict):
            raise RemoteProtocolError(host, "the returned event has no signatures")
        merged = event.with_signatures(signatures)
        (verdict,) = await admit(
            [merged.json],
            template.version,
            self._room_id,
            keys=self._parts.keys,
            runtime=self._parts.runtime,
        )
        if isinstance(verdict, Refused) or verdict.event_id != event.event_id:
            raise RemoteProtocolError(host, "the returned event is not rightly countersigned")
        return verdict

    async def _adopt(self, host: str, version: RoomVersion, event: Event, spooled: SpooledJoin) -> None:
        adoption = Adoption(self._parts, self._room_id, version)
        await adoption.read(host, spooled.auth_chain, is_state=False)
        await adoption.read(host, spooled.state, is_state=True)
        await adoption.authorise()
        state = adoption.state_map()
        create = state.get(("m.room.create", ""))
        if create is None:
            raise RemoteProtocolError(host, "the room's state has no valid create event")
        if _version_of(create) != version.version:
            raise RemoteProtocolError(host, "the room is not of the version that the server said")
        try:
            check_auth(event, state)
        except AuthError as error:
            raise RemoteProtocolError(
                host, f"our join is not allowed by the state it sent: {error}"
            ) from error
        await adoption.promote(event)
        log.info("joined a room", room=self._room_id, host=host, events=adoption.size)


def _version_of(create: Event) -> Any:
    return create.content.get("room_version", "1")
