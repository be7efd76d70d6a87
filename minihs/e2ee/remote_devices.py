# SPDX-License-Identifier: Apache-2.0
"""The devices and cross-signing keys of other servers' users (server-server-api, "Device Management").

Kept while a user of ours shares a room with them: their server then tells us of every change, as a chain of
stream ids. A link that is missing makes the list stale; it is fetched again, one question per user at a time,
and nothing stale is ever shown. Without a shared room nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog
import trio

from minihs.e2ee import ports
from minihs.e2ee.remote_answers import MAX_DEVICES, checked_device, checked_devices_answer
from minihs.e2ee.shapes import checked_cross_signing_key
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import domain_of, fits, is_user_id
from minihs.runtime import Runtime
from minihs.store import device_lists, remote_devices
from minihs.store.database import Database, Tx
from minihs.store.remote_devices import UserKeys

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 6 * 3600.0
AT_ONCE = 8
"""Lists fetched at the same time."""
MAX_FETCHES = 2_000
"""Lists that wait to be fetched; the others stay stale, and are asked for when somebody wants them."""
MAX_PREV_IDS = 100
MAX_STREAM_ID = 2**53 - 1
TIDY_INTERVAL = 3600.0


@dataclass(slots=True)
class _Fetch:
    """A list that must be fetched again."""

    pause: float = FIRST_PAUSE
    again: bool = False
    """Another change came while the question was under way: its answer may be older."""


class RemoteDevices:
    def __init__(self, db: Database, runtime: Runtime, federation: ports.Federation | None) -> None:
        self._db = db
        self._runtime = runtime
        self._federation = federation
        self._changes: dict[str, int] = {}
        """Users whose keys are being asked for: changes that came meanwhile. Their answers are not kept."""
        self._fetches: dict[str, _Fetch] = {}
        self._limit = trio.CapacityLimiter(AT_ONCE)
        self._nursery: trio.Nursery | None = None

    # -- for queries of our users ------------------------------------------------------------------

    def kept(self, user_id: str) -> UserKeys | None:
        return remote_devices.get(self._db.read, user_id)

    def is_watched(self, user_id: str) -> bool:
        """Are we told of this user's changes?"""
        return bool(device_lists.local_contacts(self._db.read, user_id))

    def begin(self, user_ids: Collection[str]) -> dict[str, int]:
        """Users are about to be asked for: a mark to give to `keep`."""
        return {user_id: self._changes.setdefault(user_id, 0) for user_id in user_ids}

    async def keep(self, mark: dict[str, int], found: dict[str, UserKeys]) -> None:
        """Keep what was found, unless a change came in between."""
        fresh = {
            user_id: keys
            for user_id, keys in found.items()
            if user_id in mark and self._changes.get(user_id) == mark[user_id] and self.is_watched(user_id)
        }

        def write(tx: Tx) -> None:
            for user_id, keys in fresh.items():
                remote_devices.replace(tx, user_id, keys, None)

        if fresh:
            await self._db.write(write)

    def end(self, mark: dict[str, int]) -> None:
        for user_id in mark:
            self._changes.pop(user_id, None)

    # -- what other servers tell -------------------------------------------------------------------

    async def receive_device(self, origin: str, content: JsonObject) -> None:
        """An m.device_list_update EDU."""
        user_id, device_id = content.get("user_id"), content.get("device_id")
        if not is_user_id(user_id) or domain_of(user_id) != origin:
            return
        stream_id, prev_ids = content.get("stream_id"), content.get("prev_id", [])
        is_whole = (
            isinstance(device_id, str)
            and fits(device_id)
            and type(stream_id) is int
            and 0 <= stream_id <= MAX_STREAM_ID
            and isinstance(prev_ids, list)
            and 0 < len(prev_ids) <= MAX_PREV_IDS
            and all(type(prev_id) is int for prev_id in prev_ids)
        )
        device = None
        if is_whole and content.get("deleted") is not True and content.get("keys") is not None:
            device = checked_device(
                content["keys"], user_id, str(device_id), content.get("device_display_name")
            )
            is_whole = device is not None

        def write(tx: Tx) -> None:
            device_lists.record_change(tx, user_id)
            state = remote_devices.state_of(tx, user_id)
            if state is None or state.stale:
                remote_devices.mark_stale(tx, user_id)
                return
            if is_whole and stream_id == state.stream_id:
                return  # we have that
            too_many = device is not None and remote_devices.count_devices(tx, user_id) >= MAX_DEVICES
            if not is_whole or set(prev_ids) != {state.stream_id} or too_many:
                remote_devices.mark_stale(tx, user_id)
                return
            remote_devices.put_device(tx, user_id, str(device_id), device)
            remote_devices.advance(tx, user_id, int(stream_id or 0))

        await self._change(user_id, write)

    async def receive_cross_signing(self, origin: str, content: JsonObject) -> None:
        """An m.signing_key_update EDU."""
        user_id = content.get("user_id")
        if not is_user_id(user_id) or domain_of(user_id) != origin:
            return
        found: dict[str, JsonObject | None] = {"master": None, "self_signing": None}
        is_whole = True
        for usage in found:
            key = content.get(f"{usage}_key")
            if key is not None:
                try:
                    found[usage] = checked_cross_signing_key(key, user_id, usage)[1]
                except MatrixError:
                    is_whole = False

        def write(tx: Tx) -> None:
            device_lists.record_change(tx, user_id)
            if is_whole:
                remote_devices.put_cross_signing(tx, user_id, found["master"], found["self_signing"])
            else:
                remote_devices.mark_stale(tx, user_id)

        await self._change(user_id, write)

    async def _change(self, user_id: str, write: Callable[[Tx], None]) -> None:
        if not self.is_watched(user_id):
            # None of ours meets the user: nobody needs to know, and nothing that is kept would stay right.
            if remote_devices.state_of(self._db.read, user_id) is not None:
                await self._db.write(lambda tx: remote_devices.forget(tx, user_id))
            return
        if user_id in self._changes:
            self._changes[user_id] += 1
        await self._db.write(write)
        state = remote_devices.state_of(self._db.read, user_id)
        if state is not None and state.stale:
            self._fetch_soon(user_id)

    # -- fetching what is stale --------------------------------------------------------------------

    async def run(self) -> None:
        """Fetch stale lists, and drop those that are worth nothing, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    for user_id in remote_devices.stale(self._db.read):
                        self._fetch_soon(user_id)
                    await trio.sleep(TIDY_INTERVAL)
                    await self._tidy()
            finally:
                self._nursery = None

    async def _tidy(self) -> None:
        unshared = await self._db.scan(remote_devices.unshared)

        def forget(tx: Tx) -> None:
            for user_id in unshared:
                remote_devices.forget(tx, user_id)

        if unshared:
            await self._db.write(forget)

    def _fetch_soon(self, user_id: str) -> None:
        fetch = self._fetches.get(user_id)
        if fetch is not None:
            fetch.again = True
        elif self._nursery is not None and self._federation is not None and len(self._fetches) < MAX_FETCHES:
            fetch = self._fetches[user_id] = _Fetch()
            self._nursery.start_soon(self._fetch, self._federation, user_id, fetch)

    async def _fetch(self, federation: ports.Federation, user_id: str, fetch: _Fetch) -> None:
        try:
            while self.is_watched(user_id):
                fetch.again = False
                async with self._limit:
                    fetched = await self._ask(federation, user_id)
                if fetched and not fetch.again:
                    return
                if not fetched:
                    await trio.sleep(fetch.pause * self._runtime.random.uniform(0.8, 1.2))
                    fetch.pause = min(fetch.pause * 2, LONGEST_PAUSE)
        finally:
            del self._fetches[user_id]

    async def _ask(self, federation: ports.Federation, user_id: str) -> bool:
        mark = self.begin([user_id])
        try:
            answer = await federation.user_devices(domain_of(user_id), user_id)
            keys, stream_id = checked_devices_answer(answer, user_id)
        except (FederationError, MatrixError) as error:
            log.info("could not fetch a user's devices", user=user_id, error=str(error))
            return False
        finally:
            unchanged = self._changes.get(user_id) == mark[user_id]
            self.end(mark)
        if not unchanged:
            return True  # another round follows

        def write(tx: Tx) -> None:
            # Clients were told of the change already; but what they then were shown may have been less.
            if remote_devices.replace(tx, user_id, keys, stream_id):
                device_lists.record_change(tx, user_id)

        await self._db.write(write)
        return True
