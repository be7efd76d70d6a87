# SPDX-License-Identifier: Apache-2.0
"""Joining a room that we are in, or so we believe, by an invite that can't be given its place.

Others may count us out of a room without our knowledge: we were removed while we could not be reached, or had
come in through a server that they deny. Then nobody tells us anything, nor shows us what an invite is built
upon, and a join that is built on what we have would be heard by none of them. The invite waits in the inbox,
which is how we know. Through the server that sent it our user gets into the room as that server sees it; what
it says of the room's state then counts beside what we know (it is an end of the history as any other).

Should that server lead nowhere, no harm is done but a pause: the room is joined as if it had not been asked.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import domain_of
from minihs.rooms.admission import Source
from minihs.rooms.gaps import Defer, Gaps
from minihs.rooms.join_through import JoinThrough
from minihs.rooms.parts import Parts
from minihs.store import inbox, memberships, rooms
from minihs.store.events import Outcome

log = structlog.get_logger()

MAX_ASKED = 2
"""Servers, those whose invites came last."""
PATIENCE = 30.0
"""Seconds for each of them."""


class JoinByInvite:
    """Runs outside of the room's task: its server may at the same time be joining through us."""

    def __init__(self, parts: Parts, gaps: Gaps, through: JoinThrough) -> None:
        self._parts = parts
        self._gaps = gaps
        self._through = through
        self._under_way: dict[tuple[str, str], trio.Event] = {}

    async def run(self, room_id: str, user_id: str, content: JsonObject) -> None:
        """If there is such an invite, try. Whether the user is in the room then is to be looked at; as we see
        it they may have been before."""
        ended = self._under_way.get((room_id, user_id))
        if ended is not None:  # a client that tries again does not have the same asked once more
            await ended.wait()
        elif self._hosts(room_id, user_id):
            await trio.lowlevel.checkpoint_if_cancelled()  # from here on the job will be run
            self._under_way[room_id, user_id] = trio.Event()
            # A job of its own, as it has to be carried out even if nobody waits for it any more.
            await self._parts.tasks.run(
                f"join {user_id} to {room_id}", lambda: self._run_once(room_id, user_id, content)
            )

    async def _run_once(self, room_id: str, user_id: str, content: JsonObject) -> None:
        try:
            await self._run(room_id, user_id, content)
        finally:
            self._under_way.pop((room_id, user_id)).set()

    def _hosts(self, room_id: str, user_id: str) -> list[str]:
        """The servers of those who invited the user and are in the room as we see it."""
        db = self._parts.db.read
        room = rooms.get(db, room_id)
        if room is None or not room.resident or room.partial:
            return []
        found: dict[str, None] = {}
        for sender in inbox.waiting_inviters(db, room_id, user_id):
            inviter = memberships.get(db, room.room_nid, sender)
            if inviter is not None and inviter.membership == "join":
                found[domain_of(sender)] = None
        return list(found)[:MAX_ASKED]

    async def _run(self, room_id: str, user_id: str, content: JsonObject) -> None:
        for host in self._hosts(room_id, user_id):
            try:
                with trio.fail_after(PATIENCE):
                    event = await self._through.ask(host, room_id, user_id, content, vouched=False)
                await self._parts.tasks.run(room_id, partial(self._take, room_id, event, host))
            except (FederationError, MatrixError, trio.TooSlowError) as error:
                log.info("could not join by an invite", room=room_id, host=host, error=str(error))
            else:
                return

    async def _take(self, room_id: str, event: Event, host: str) -> None:
        """The join as if it had come from that server; sent to the others as well, in case that it does not
        send it on. Raises MatrixError."""
        try:
            async with self._gaps.taking(event, host, Source.OWN_JOIN) as batch:
                if any(batch.graph.outcome(prev_id) is Outcome.REJECTED for prev_id in event.prev_events):
                    # Nobody would get that from us, so the others could not place the join.
                    raise MatrixError(502, "M_UNKNOWN", "The join is built on what was rejected.")
                batch.send_on(event, but=host)
        except Defer as error:
            raise MatrixError(502, "M_UNKNOWN", f"The join can't be placed yet: {error}") from error
        joined = self._parts.head(room_id).membership(self._parts.graph, event.sender) == "join"
        if self._parts.graph.outcome(event.event_id) is not Outcome.ACCEPTED or not joined:
            raise MatrixError(403, "M_FORBIDDEN", "The room's rules do not allow the join.")
