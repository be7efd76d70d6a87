# SPDX-License-Identifier: Apache-2.0
"""Joining a room that we are in, but that none of our users may let the newcomer into.

In a restricted room somebody with the power to invite must vouch for who joins (client-server-api,
"Restricted rooms"). If no user of ours has it, or we can't tell whether the newcomer is in an allowed room,
another resident is asked, as if we were not in the room. Of its answer only the signature on our own join
counts: the state we have ourselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog

from minihs.matrix.auth_rules import PowerLevels
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError, RemoteProtocolError
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms.admission import Source
from minihs.rooms.gaps import Defer, Gaps
from minihs.rooms.handshake import MAX_CANDIDATES, countersigned, failure, own_member_event, read_template
from minihs.rooms.head import Head
from minihs.rooms.parts import Parts
from minihs.store import memberships, rooms
from minihs.store.events import Outcome

log = structlog.get_logger()

NEEDS_ANOTHER = ("M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN")


class JoinThrough:
    """`run` runs in the room's task."""

    def __init__(self, parts: Parts, gaps: Gaps) -> None:
        self._parts = parts
        self._gaps = gaps

    async def run(self, room_id: str, user_id: str, content: JsonObject, refusal: MatrixError) -> None:
        """Join through the first server that vouches. Raises `refusal`, which is ours, if there is nobody to
        ask."""
        errors: list[FederationError] = []
        for host in self._hosts(self._parts.head(room_id))[:MAX_CANDIDATES]:
            try:
                event = await self._parts.tasks.aside(
                    room_id, partial(self.ask, host, room_id, user_id, content, vouched=True)
                )
            except FederationError as error:
                log.info("a server did not vouch for a join", room=room_id, host=host, error=str(error))
                errors.append(error)
            else:
                await self._take(room_id, event, host)
                return
        raise failure(errors, "Joining the room") if errors else refusal

    def _hosts(self, head: Head) -> Sequence[str]:
        """The other servers in the room, first those that have somebody with the power to invite."""
        state, db = head.state(self._parts.graph), self._parts.db.read
        levels = PowerLevels.from_state(state)
        listed = levels.event.content.get("users") if levels.event is not None else None
        create = head.create_event(self._parts.graph)
        users = {*(listed if isinstance(listed, dict) else ()), *([create.sender] if create else ())}
        powerful: set[str] = set()
        for user_id in users:
            held = memberships.get(db, head.room_nid, user_id)
            if held is not None and held.membership == "join" and levels.user(user_id) >= levels.invite:
                powerful.add(domain_of(user_id))
        hosts = [host for host in rooms.hosts(db, head.room_nid) if host != self._parts.our_name]
        return sorted(hosts, key=lambda host: host not in powerful)

    async def ask(
        self, host: str, room_id: str, user_id: str, content: JsonObject, *, vouched: bool
    ) -> Event:
        """Our join, countersigned if that is wanted (`vouched`) or needed. The room may change meanwhile."""
        federation = self._parts.federation
        answer = await federation.make_join(host, room_id, user_id, list(ROOM_VERSIONS))
        template = read_template(host, answer, room_id=room_id, user_id=user_id, membership="join")
        if template.version != self._parts.head(room_id).version:
            raise RemoteProtocolError(host, "takes the room for one of another version")
        content = {**content, "membership": "join"}
        content.pop("join_authorised_via_users_server", None)
        if template.authoriser is not None and template.version.restricted_join:
            content["join_authorised_via_users_server"] = template.authoriser
        elif vouched:
            raise RemoteProtocolError(host, "does not say who vouches for the join")
        event = own_member_event(self._parts, host, template, room_id, user_id, content)
        async with federation.send_join(
            host, room_id, event.event_id, event.json, omit_members=True
        ) as spooled:
            return await countersigned(self._parts, host, event, spooled.event)

    async def _take(self, room_id: str, event: Event, host: str) -> None:
        """The join as if it had come from that server, which sends it on. Raises MatrixError."""
        try:
            async with self._gaps.taking(event, host, Source.COUNTERSIGNED):
                pass
        except Defer as error:
            raise MatrixError(502, "M_UNKNOWN", f"The join can't be placed yet: {error}") from error
        stored = self._parts.graph.stored(event.event_id)
        if stored is None or stored.outcome is not Outcome.ACCEPTED:
            raise MatrixError(403, "M_FORBIDDEN", "The room's rules do not allow the join.")
