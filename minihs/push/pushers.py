# SPDX-License-Identifier: Apache-2.0
"""Sending notifications to push gateways (client-server-api, "Push Notifications"; push-gateway-api).

The policy, which the code follows:

- A pusher has a task only while there is something to push, or while its gateway fails. What is to be pushed
  is worked out from the database: events after the pusher's cursor that notify its user and are unread. So
  nothing is queued, nothing is lost by a restart, and what was read meanwhile is not pushed at all.
- Events go one by one, in order. The cursor is written back within a second; who dies in between sends an
  event twice, which gateways tell by its id.
- When messages were read, the gateway is told the new count alone.
- Any failure of a gateway, an error status included, is tried again after a pause that doubles each time up
  to an hour. What is a day old by then is not pushed any more.
- A key that the gateway rejects is removed. A pusher ends with the device that made it.
"""

from __future__ import annotations

import structlog
import trio

from minihs.matrix import fields
from minihs.matrix.canonical import JsonObject, dumps
from minihs.matrix.errors import bad_json, invalid_param, missing_param
from minihs.matrix.federation_errors import FederationError
from minihs.push.notification import badge_body, body_of, check_url, device_of
from minihs.push.ports import Gateway, Unread
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import pushers as store
from minihs.store.database import Database, Tx
from minihs.store.pushers import Pusher

log = structlog.get_logger(__name__)

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 1000, 3600_000
MAX_AGE_MS = 24 * 3600_000
"""Older events are not pushed: they are no news."""

MAX_APP_ID, MAX_PUSHKEY, MAX_DATA = 64, 512, 16 * 1024
"""Characters, bytes and bytes."""

MAX_LAG = 1000
"""Positions that a cursor in the database may lie behind while nothing is pushed."""

FLUSH_INTERVAL = 1.0


class _Worker:
    """A pusher at work. Changed on the loop only."""

    def __init__(self, pusher: Pusher) -> None:
        self.pusher = pusher
        self.cursor = self.saved = pusher.cursor
        self.badge = pusher.badge
        self.backoff_ms = pusher.backoff_ms
        self.retry_at = pusher.retry_at
        self.more = True
        self.running = False
        self.gone = False
        self.go_on = trio.Event()

    def __repr__(self) -> str:
        state = "failing" if self.backoff_ms else "sending" if self.running else "idle"
        return f"<Pusher {self.pusher.app_id} of {self.pusher.user_id}: {state}>"


class Pushers:
    def __init__(self, db: Database, runtime: Runtime, unread: Unread, gateways: Gateway) -> None:
        self._db = db
        self._runtime = runtime
        self._unread = unread
        self._gateways = gateways
        self._workers: dict[str, dict[int, _Worker]] = {}
        """user id → pusher id → worker: of each pusher there is."""
        self._unsaved: dict[int, _Worker] = {}
        self._flush_news = trio.Event()
        self._nursery: trio.Nursery | None = None
        db.on_commit(self._on_commit)

    # -- what clients ask --------------------------------------------------------------------------

    def of_user(self, user_id: str) -> list[JsonObject]:
        """GET /pushers."""
        return [
            {"app_id": pusher.app_id, "pushkey": pusher.pushkey, **pusher.about}
            for pusher in store.of_user(self._db.read, user_id)
        ]

    async def set(self, requester: Requester, body: JsonObject) -> None:
        """POST /pushers/set: make, change or (with kind null) remove a pusher."""
        user_id = requester.user_id
        app_id = fields.required_text(body, "app_id", limit=4 * MAX_APP_ID)
        pushkey = fields.required_text(body, "pushkey", limit=MAX_PUSHKEY)
        if len(app_id) > MAX_APP_ID:
            raise invalid_param(f"app_id is longer than {MAX_APP_ID} characters.")
        if "kind" not in body:
            raise missing_param("kind is missing.")
        if body["kind"] is None:
            await self._db.write(lambda tx: store.remove(tx, user_id, app_id, pushkey))
            self._reload(user_id)
            return
        about = dumps(_about(body)).decode()
        append = fields.flag(body, "append")
        now = self._runtime.clock.now_ms()

        def write(tx: Tx) -> None:
            store.put(tx, user_id, requester.device_id, app_id, pushkey, about, now_ms=now, append=append)

        await self._db.write(write)
        # The same key may have been taken from somebody else.
        for each in {user_id, *self._workers}:
            self._reload(each)

    async def test(self, user_id: str) -> dict[str, str]:
        """Tell each of a user's gateways the count of unread messages: app_id → what came of it."""
        results = {}
        count = await self._unread.count(user_id)
        for pusher in store.of_user(self._db.read, user_id):
            body = badge_body(count, device_of(pusher))
            try:
                answer = await self._gateways.notify(pusher.about["data"]["url"], body)
            except FederationError as error:
                results[pusher.app_id] = str(error)
            else:
                rejected = pusher.pushkey in _rejected(answer)
                results[pusher.app_id] = "rejects the key" if rejected else "accepts"
        if user_id not in self._workers:
            self._unread.forget(user_id)
        return results

    # -- who has work ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Push until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._flush)
                for user_id in {pusher.user_id for pusher in store.all_pushers(self._db.read)}:
                    self._reload(user_id)
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                await self._save()

    def _on_commit(self, keys: frozenset[str]) -> None:
        if not self._workers:
            return
        for user_id in self._unread.concerned(keys, self._workers.keys()):
            for worker in self._workers[user_id].values():
                self._wake(worker)

    def _reload(self, user_id: str) -> None:
        """A user's pushers changed."""
        before = self._workers.pop(user_id, {})
        now: dict[int, _Worker] = {}
        for pusher in store.of_user(self._db.read, user_id):
            worker = before.pop(pusher.pusher_id, None)
            if worker is None:
                worker = _Worker(pusher)
            elif worker.pusher != pusher and pusher.retry_at is None:
                worker.backoff_ms, worker.retry_at = 0, None  # set anew: it may work now
                worker.go_on.set()
            worker.pusher = pusher
            now[pusher.pusher_id] = worker
        for worker in before.values():
            worker.gone = True
            worker.go_on.set()
        if now:
            self._workers[user_id] = now
            for worker in now.values():
                self._wake(worker)
        else:
            self._unread.forget(user_id)

    def _wake(self, worker: _Worker) -> None:
        worker.more = True
        if not worker.running and self._nursery is not None:
            worker.running = True
            self._nursery.start_soon(self._work, worker)

    # -- one pusher --------------------------------------------------------------------------------

    async def _work(self, worker: _Worker) -> None:
        try:
            while worker.more and not worker.gone:
                worker.more = False
                while await self._pause(worker) and await self._step(worker):
                    continue
        except Exception as error:  # the boundary of one pusher: the others go on
            log.error("a pusher failed", pusher=repr(worker), exc_info=error)
        finally:
            worker.running = False

    async def _pause(self, worker: _Worker) -> bool:
        """Wait until the next attempt; False: the pusher is no more."""
        if worker.retry_at is not None:
            # A clock that was set back must not make the pause longer than it can be.
            pause = min(worker.retry_at - self._runtime.clock.now_ms(), 2 * LONGEST_PAUSE_MS)
            worker.go_on = trio.Event()
            with trio.move_on_after(max(0, pause) / 1000):
                await worker.go_on.wait()
            worker.retry_at = None
        if not store.exists(self._db.read, worker.pusher.pusher_id):
            self._reload(worker.pusher.user_id)
        return not worker.gone

    async def _step(self, worker: _Worker) -> bool:
        """Push the next event, or else the count. True: there may be more to do."""
        user_id, pusher = worker.pusher.user_id, worker.pusher
        news, looked_at = await self._unread.next_after(user_id, worker.cursor)
        count = await self._unread.count(user_id)
        if news is None:
            worker.cursor = max(worker.cursor, looked_at)
            if worker.cursor - worker.saved > MAX_LAG:
                self._to_save(worker)
            if count >= worker.badge:
                return False
            return await self._send(worker, badge_body(count, device_of(pusher)), worker.cursor, count)
        if news.received_ts < self._runtime.clock.now_ms() - MAX_AGE_MS:
            worker.cursor = news.pos
            return True
        body = body_of(news, count, device_of(pusher, news.tweaks), user_id=user_id)
        await self._send(worker, body, news.pos, count)
        return True

    async def _send(self, worker: _Worker, body: JsonObject, cursor: int, count: int) -> bool:
        """False: it failed, and is to be tried again after a pause."""
        pusher = worker.pusher
        try:
            answer = await self._gateways.notify(pusher.about["data"]["url"], body)
        except FederationError as error:
            await self._fail(worker, str(error))
            return True
        if pusher.pushkey in _rejected(answer):
            log.info("a push gateway rejects a key", app_id=pusher.app_id, user_id=pusher.user_id)
            await self._db.write(lambda tx: store.remove_key(tx, pusher.app_id, pusher.pushkey))
            for user_id in list(self._workers):
                self._reload(user_id)
            return False
        worker.cursor, worker.badge, worker.backoff_ms = max(worker.cursor, cursor), count, 0
        self._to_save(worker)
        return False

    async def _fail(self, worker: _Worker, error: str) -> None:
        now = self._runtime.clock.now_ms()
        worker.backoff_ms = min(max(FIRST_PAUSE_MS, 2 * worker.backoff_ms), LONGEST_PAUSE_MS)
        pause = round(worker.backoff_ms * (1 + self._runtime.random.uniform(0.0, 0.5)))
        worker.retry_at = retry_at = now + pause
        log.info("a push gateway fails", app_id=worker.pusher.app_id, reason=error, pause_ms=pause)
        pusher_id, backoff_ms = worker.pusher.pusher_id, worker.backoff_ms
        await self._db.write(
            lambda tx: store.fail(
                tx, pusher_id, now_ms=now, retry_at=retry_at, backoff_ms=backoff_ms, error=error
            )
        )

    # -- remembering how far it got ----------------------------------------------------------------

    def _to_save(self, worker: _Worker) -> None:
        self._unsaved[worker.pusher.pusher_id] = worker
        self._flush_news.set()

    async def _flush(self) -> None:
        while True:
            await self._flush_news.wait()
            await trio.sleep(FLUSH_INTERVAL)
            self._flush_news = trio.Event()
            await self._save()

    async def _save(self) -> None:
        workers, self._unsaved = list(self._unsaved.values()), {}
        if not workers:
            return
        rows = [(worker.pusher.pusher_id, worker.cursor, worker.badge) for worker in workers]

        def write(tx: Tx) -> None:
            for row in rows:
                store.move(tx, *row)

        await self._db.write(write)
        for worker in workers:
            worker.saved = worker.cursor


def _about(body: JsonObject) -> JsonObject:
    """What a client says of a new pusher, checked."""
    kind = fields.required_text(body, "kind")
    if kind != "http":
        raise invalid_param("Of pushers, this server has only those of kind http.")
    about: JsonObject = {"kind": kind}
    for name in ("app_display_name", "device_display_name", "lang"):
        about[name] = fields.required_text(body, name)
    tag = fields.optional_text(body, "profile_tag")
    if tag is not None:
        about["profile_tag"] = tag
    data = fields.required_object(body, "data")
    if len(dumps(data)) > MAX_DATA:
        raise bad_json(f"data is larger than {MAX_DATA} bytes.")
    check_url(fields.required_text(data, "url", limit=2048))
    about["data"] = data
    return about


def _rejected(answer: JsonObject) -> list[object]:
    rejected = answer.get("rejected")
    return rejected if isinstance(rejected, list) else []
