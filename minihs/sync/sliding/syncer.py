# SPDX-License-Identifier: Apache-2.0
"""POST .../sync of sliding sync: waits until there is something to tell, and tells it (MSC4186).

Like /sync, an answer is built from the database as of one `pos` (and typing, from memory). Only what each
client was told of each room is remembered from one request to the next: see `connections`.
"""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import account_data, sync_rooms, to_device
from minihs.store.database import Database, TooLong
from minihs.store.reader import Reader
from minihs.sync.client_events import Viewer
from minihs.sync.group_facts import GroupFacts
from minihs.sync.lazy_members import Delivery as Members
from minihs.sync.lazy_members import LazyMembers
from minihs.sync.notifier import Notifier
from minihs.sync.polls import Attempt, Polls
from minihs.sync.sliding.build import Built, build
from minihs.sync.sliding.connections import Connection, Connections
from minihs.sync.sliding.context import SlidingContext, TypingNow
from minihs.sync.sliding.request import SlidingRequest
from minihs.sync.syncer import LONG_ABSENCE, MAX_TIMEOUT_MS
from minihs.sync.tokens import SlidingToken, SyncToken
from minihs.sync.typing import Typing
from minihs.sync.unread import Unread

MAX_ROOMS_ON_LOOP = 5
"""An answer that tells of more rooms is built in a thread."""


class SlidingSyncer:
    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        notifier: Notifier,
        typing: Typing,
        facts: GroupFacts,
        unread: Unread | None = None,
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._polls = Polls(db, notifier, typing)
        self._typing = typing
        self._facts = facts
        self._unread = unread or Unread(facts)
        self._connections = Connections(db, runtime)
        self._lazy_members = LazyMembers()

    async def sync(self, requester: Requester, request: SlidingRequest) -> JsonObject:
        """The answer; waits up to the time-out if there is no news. M_UNKNOWN_POS: the client has to start
        over, without a position."""
        connection = self._connections.open(requester, request.conn_id, request.pos)
        token = connection.token  # another request may carry the connection on while this one waits
        await self._acknowledge(requester, request)
        await self._connections.save(requester, request.conn_id, connection)
        built, members, at = await self._wait_for_news(requester, request, connection, token)
        pos = str(self._connections.finish(requester, request.conn_id, connection, token, at, built.delivery))
        self._lazy_members.finish(requester.user_id, _lazy_key(requester, request), request.pos, pos, members)
        return {"pos": pos, **built.answer}

    async def _wait_for_news(
        self,
        requester: Requester,
        request: SlidingRequest,
        connection: Connection,
        token: SlidingToken | None,
    ) -> tuple[Built, Members, SyncToken]:
        timeout = 0 if token is None else min(request.timeout_ms, MAX_TIMEOUT_MS) / 1000

        async def attempt() -> Attempt[tuple[Built, Members, SyncToken]]:
            members = self._lazy_members.begin(requester.user_id, _lazy_key(requester, request), request.pos)
            built, at = await self._attempt(requester, request, connection, token, members)
            e2ee = built.answer["extensions"].get("e2ee", {})
            counts = [value for name, value in e2ee.items() if name != "device_lists"]
            return Attempt((built, members, at), built.is_empty, counts)

        return await self._polls.wait(Viewer(requester.user_id, requester.device_id), timeout, attempt)

    async def _attempt(
        self,
        requester: Requester,
        request: SlidingRequest,
        connection: Connection,
        token: SlidingToken | None,
        members: Members,
    ) -> tuple[Built, SyncToken]:
        """One answer as of now, empty or not."""
        since = None if token is None else token.at
        typing = self._typing_now(since)
        now_ms = self._runtime.clock.now_ms()

        def attempt(db: Reader, max_rooms: int | None = None) -> tuple[Built, SyncToken]:
            upto = sync_rooms.current_pos(db)
            if max_rooms is not None and since is not None and upto - since.pos > LONG_ABSENCE:
                raise TooLong
            context = SlidingContext(
                db=db,
                facts=self._facts,
                viewer=Viewer(requester.user_id, requester.device_id),
                request=request,
                since=since,
                upto=upto,
                now_ms=now_ms,
                typing=typing,
                ignored=account_data.ignored_users(db, requester.user_id) - {requester.user_id},
                members=members,
                known=connection.rooms,
                known_data=connection.data,
                settled=connection.settled,
            )
            return build(context, self._unread, max_rooms), SyncToken(upto, typing.serial)

        if since is None:
            return await self._db.scan(attempt)
        return await self._db.glance(lambda db: attempt(db, MAX_ROOMS_ON_LOOP), attempt)

    def _typing_now(self, since: SyncToken | None) -> TypingNow:
        typing = self._typing
        users = {room_id: typing.users(room_id) for room_id in typing.changed_since(-1)}
        if since is None:
            return TypingNow(typing.serial, users, frozenset(), forgotten=False)
        changed = frozenset(typing.changed_since(since.ephemeral))
        return TypingNow(typing.serial, users, changed, since.ephemeral < typing.first_serial)

    async def _acknowledge(self, requester: Requester, request: SlidingRequest) -> None:
        """The device has the messages that it was sent before `since`."""
        wanted = request.extensions.to_device
        if wanted is None or wanted.since > sync_rooms.current_pos(self._db.read):
            return
        user_id, device_id, upto = requester.user_id, requester.device_id, wanted.since
        if not to_device.is_acknowledged(self._db.read, user_id, device_id, upto):
            await self._db.write(lambda tx: to_device.acknowledge(tx, user_id, device_id, upto))


def _lazy_key(requester: Requester, request: SlidingRequest) -> str:
    """Members are remembered for each connection."""
    return f"{requester.device_id}|{request.conn_id}"
