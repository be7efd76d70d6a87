# SPDX-License-Identifier: Apache-2.0
"""GET /sync: waits until there is something to tell, and tells it (client-server-api, "Syncing").

An answer is built from the database alone (and typing, from memory), as of one `pos`; the next request goes
on from there. Nothing is remembered between the two but how members were lazy-loaded, which may be lost at
any time.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import account_data, sync_rooms, to_device
from minihs.store.database import Database, TooLong
from minihs.store.reader import Reader
from minihs.sync.build import Built, build
from minihs.sync.client_events import Viewer
from minihs.sync.context import STATE, SyncContext, SyncRequest, TypingNews
from minihs.sync.filters import SyncFilter
from minihs.sync.group_facts import GroupFacts
from minihs.sync.lazy_members import Delivery, LazyMembers
from minihs.sync.notifier import Notifier
from minihs.sync.polls import Attempt, Polls
from minihs.sync.ports import NoPresence, PresenceNews
from minihs.sync.tokens import SyncToken, parse_sync_token
from minihs.sync.typing import Typing
from minihs.sync.unread import Unread

MAX_TIMEOUT_MS = 120_000
"""A longer poll is answered empty after this; proxies give up about then."""

LONG_ABSENCE = 20_000
"""Positions. A client that was away for longer is answered from a thread: much may have to be read."""


MAX_TOLD = 1_000
"""Devices of which the last answer is remembered."""


class SyncOptions(NamedTuple):
    """The parameters of one request, checked."""

    filter: SyncFilter
    since: str = ""
    timeout_ms: int = 0
    full_state: bool = False
    state_name: str = STATE


class _Told(NamedTuple):
    """The last answer to a device, after which it has all that there is."""

    next_batch: str
    commits: int
    """How many there had been."""
    counts: object


class Syncer:
    def __init__(
        self,
        db: Database,
        runtime: Runtime,
        notifier: Notifier,
        typing: Typing,
        facts: GroupFacts,
        presence: PresenceNews | None = None,
        unread: Unread | None = None,
    ) -> None:
        self._db = db
        self._runtime = runtime
        self._polls = Polls(db, notifier, typing)
        self._typing = typing
        self._facts = facts
        self._presence = presence or NoPresence()
        self._unread = unread or Unread(facts)
        self._lazy_members = LazyMembers()
        self._told: OrderedDict[tuple[str, str], _Told] = OrderedDict()
        self._commits = 0
        db.on_every_commit(self._count_commit)

    def _count_commit(self) -> None:
        self._commits += 1

    async def sync(self, requester: Requester, options: SyncOptions) -> JsonObject:
        """The answer; waits up to the time-out if there is no news. M_INVALID_PARAM: the token is
        malformed."""
        since = parse_sync_token(options.since) if options.since else None
        told = None if since is None else self._told_all(requester, since, options)
        if since is not None and told is None:
            if since.pos > sync_rooms.current_pos(self._db.read):
                since = None  # from a future that a restored backup does not know: the client starts over
            else:
                await self._acknowledge(requester, since)
        request = SyncRequest(
            Viewer(requester.user_id, requester.device_id),
            options.filter,
            since,
            options.full_state,
            options.state_name,
        )
        built, delivery = await self._wait_for_news(request, options, told)
        if options.filter.lazy_load_members:
            self._lazy_members.finish(
                requester.user_id,
                requester.device_id,
                "" if since is None else options.since,
                built.next_batch,
                delivery,
            )
        return built.answer

    def _told_all(self, requester: Requester, since: SyncToken, options: SyncOptions) -> _Told | None:
        """The last answer to this device, if it comes back with its token and nothing happened meanwhile."""
        told = self._told.get((requester.user_id, requester.device_id))
        if told is None or told.next_batch != options.since or told.commits != self._commits:
            return None
        if since.ephemeral != self._typing.serial or self._presence.news(requester.user_id, since.ephemeral):
            return None
        return told

    def _remember(self, viewer: Viewer, built: Built, commits: int, counts: object) -> None:
        if not built.has_all:
            return
        self._told[viewer.user_id, viewer.device_id] = _Told(built.next_batch, commits, counts)
        self._told.move_to_end((viewer.user_id, viewer.device_id))
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)

    async def _wait_for_news(
        self, request: SyncRequest, options: SyncOptions, told: _Told | None
    ) -> tuple[Built, Delivery]:
        viewer = request.viewer
        wait = request.since is not None and not request.full_state
        timeout = min(options.timeout_ms, MAX_TIMEOUT_MS) / 1000 if wait else 0

        async def attempt() -> Attempt[tuple[Built, Delivery]]:
            commits = self._commits  # there may be more by the time that the answer is built
            delivery = self._lazy_members.begin(
                viewer.user_id, viewer.device_id, options.since if request.since is not None else ""
            )
            built = await self._attempt(request, delivery)
            counts = (
                built.answer["device_one_time_keys_count"],
                built.answer["device_unused_fallback_key_types"],
            )
            self._remember(viewer, built, commits, counts)
            return Attempt((built, delivery), built.is_empty, counts)

        return await self._polls.wait(viewer, timeout, attempt, told=None if told is None else told.counts)

    async def _attempt(self, request: SyncRequest, delivery: Delivery) -> Built:
        """One answer as of now, empty or not."""
        typing = self._typing_news(request)
        since = None if request.since is None else request.since.ephemeral
        presence = self._presence.news(request.viewer.user_id, since)
        now_ms = self._runtime.clock.now_ms()

        def attempt(db: Reader, *, long: bool = True) -> Built:
            user_id, upto = request.viewer.user_id, sync_rooms.current_pos(db)
            if not long and request.since is not None and upto - request.since.pos > LONG_ABSENCE:
                raise TooLong
            context = SyncContext(
                db=db,
                facts=self._facts,
                request=request,
                upto=upto,
                now_ms=now_ms,
                typing=typing,
                ignored=account_data.ignored_users(db, user_id) - {user_id},
                members=delivery,
                presence=presence,
            )
            return build(context, self._unread)

        if request.since is None or request.full_state:
            return await self._db.scan(attempt)
        return await self._db.glance(partial(attempt, long=False), attempt)

    def _typing_news(self, request: SyncRequest) -> TypingNews:
        typing, since = self._typing, request.since
        rooms = typing.changed_since(-1 if since is None else since.ephemeral)
        users = {room_id: typing.users(room_id) for room_id in rooms}
        if since is None:
            users = {room_id: names for room_id, names in users.items() if names}
        forgotten = since is not None and since.ephemeral < typing.first_serial
        return TypingNews(typing.serial, users, forgotten)

    async def _acknowledge(self, requester: Requester, since: SyncToken) -> None:
        """The device has what it was sent before `since`."""
        upto = since.pos if since.to_device is None else since.to_device
        user_id, device_id = requester.user_id, requester.device_id
        if not to_device.is_acknowledged(self._db.read, user_id, device_id, upto):
            await self._db.write(lambda tx: to_device.acknowledge(tx, user_id, device_id, upto))
