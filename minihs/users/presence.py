# SPDX-License-Identifier: Apache-2.0
"""Presence, in memory (client-server-api and server-server-api, "Presence").

It is lost with a restart, and that is right: nobody is online then. It is shown to, sent to and taken from
those only with whom a user shares a direct room (`store.direct`): in a large room it would be nothing but
work for all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import trio

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, forbidden, invalid_param, not_found
from minihs.matrix.fields import optional_text, required_text
from minihs.matrix.ids import domain_of, fits, is_user_id
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import device_lists, direct
from minihs.store import users as user_store
from minihs.store.database import Database
from minihs.users import ports

STATES = ("online", "offline", "unavailable")
MAX_STATUS = 1024

ACTIVE_MS = 300_000
"""After this long without a sign of life an online user counts as away."""
GONE_MS = 30 * 60_000
"""And after this long as offline; of remote users, that their server told nothing of."""
NOW_MS = 60_000
REPEAT_MS = 20 * 60_000
"""Other servers forget who is online if they are not told again within half an hour."""
LOOK_SECONDS = 60.0

MAX_REMOTE = 2_000
"""Remote users remembered; the one not heard of for longest goes first."""
MAX_IN_EDU = 100
MAX_NEWS = 200
"""Changes that one /sync tells."""


class UserPresence(NamedTuple):
    presence: str
    status_msg: str | None
    last_active_ms: int
    heard_ms: int
    """When we last heard of it; for our users the same."""
    currently_active: bool | None = None
    """As another server says."""


class Presence:
    """One entry per user who was seen since the start. Lives on the event loop."""

    def __init__(self, db: Database, runtime: Runtime, our_name: str = "") -> None:
        self._db = db
        self._runtime = runtime
        self._our_name = our_name
        self._users: OrderedDict[str, UserPresence] = OrderedDict()
        self._shown: dict[str, tuple[str, str | None]] = {}
        """State and message as clients and servers were last told."""
        self._sent_ms: dict[str, int] = {}
        self._changed: OrderedDict[str, int] = OrderedDict()
        """User → serial of the last change, in that order."""
        self._edus: ports.EduQueue | None = None
        self._wake: Callable[[Iterable[str]], None] = _nobody
        self._next_serial: Callable[[], int] = int

    def connect(
        self,
        *,
        edus: ports.EduQueue,
        wake: Callable[[Iterable[str]], None],
        next_serial: Callable[[], int],
    ) -> None:
        """`wake`: those who wait for these keys of the change log. `next_serial`: numbers that only grow, as
        clients' tokens carry them."""
        self._edus, self._wake, self._next_serial = edus, wake, next_serial

    # -- our users ---------------------------------------------------------------------------------

    def set(self, requester: Requester, user_id: str, body: JsonObject) -> None:
        """PUT /presence/{userId}/status."""
        if requester.user_id != user_id:
            raise forbidden("You can only set your own presence.")
        state = required_text(body, "presence")
        if state not in STATES:
            raise invalid_param("presence must be online, offline or unavailable.")
        now = self._runtime.clock.now_ms()
        message = optional_text(body, "status_msg", limit=MAX_STATUS)
        self._put(user_id, UserPresence(state, message, now, now))

    def seen(self, user_id: str, state: str = "online") -> None:
        """The user synced with this `set_presence`; the status message stays."""
        if state not in STATES:
            raise bad_json("set_presence must be online, offline or unavailable.")
        before = self._users.get(user_id)
        now = self._runtime.clock.now_ms()
        self._put(user_id, UserPresence(state, before.status_msg if before else None, now, now))

    def get(self, requester: Requester, user_id: str) -> JsonObject:
        """GET /presence/{userId}/status."""
        if user_id != requester.user_id and not device_lists.share_a_room(
            self._db.read, requester.user_id, user_id
        ):
            if not user_store.is_active(self._db.read, user_id):
                raise not_found("There is no such user.")
            raise forbidden("You are not allowed to see their presence.")
        return self.of(user_id)

    def of(self, user_id: str) -> JsonObject:
        """The content of an m.presence event."""
        known = self._users.get(user_id)
        if known is None:
            return {"presence": "offline"}
        now = self._runtime.clock.now_ms()
        state = _state_at(known, now, local=self._is_ours(user_id))
        ago = max(0, now - known.last_active_ms)
        content: JsonObject = {"presence": state, "last_active_ago": ago}
        if known.status_msg is not None:
            content["status_msg"] = known.status_msg
        if state == "online":
            active = known.currently_active
            content["currently_active"] = ago < NOW_MS if active is None else active
        return content

    def _is_ours(self, user_id: str) -> bool:
        return user_id.endswith(":" + self._our_name)

    # -- news --------------------------------------------------------------------------------------

    def _put(self, user_id: str, new: UserPresence) -> None:
        self._users[user_id] = new
        self._users.move_to_end(user_id)
        self._tell(user_id)

    def _tell(self, user_id: str) -> None:
        """Tell clients and servers what they were not told yet."""
        now, known = self._runtime.clock.now_ms(), self._users[user_id]
        local = self._is_ours(user_id)
        shown = (_state_at(known, now, local=local), known.status_msg)
        repeat = (
            local
            and shown[0] != "offline"
            and now - self._sent_ms.get(user_id, now) >= REPEAT_MS
            and now - known.heard_ms < REPEAT_MS
        )
        if shown != self._shown.get(user_id, ("offline", None)):
            self._shown[user_id] = shown
            self._changed[user_id] = self._next_serial()
            self._changed.move_to_end(user_id)
            self._wake(f"user:{each}" for each in [user_id, *self._local_contacts(user_id)])
        elif not repeat:
            return
        if local and self._edus is not None:
            self._sent_ms[user_id] = now
            hosts = {domain_of(other) for other in direct.contacts(self._db.read, user_id)} - {self._our_name}
            if hosts:
                push = {"user_id": user_id, "last_active_ago": 0, **self.of(user_id)}
                self._edus.queue_edu(hosts, "m.presence", {"push": [push]}, key=(user_id,))

    def _local_contacts(self, user_id: str) -> list[str]:
        """Our users whom this user's presence concerns."""
        db = self._db.read
        return [
            other
            for other in device_lists.local_contacts(db, user_id)
            if direct.are_contacts(db, other, user_id)
        ]

    def news(self, user_id: str, since: int | None) -> list[JsonObject]:
        """m.presence events of what changed for a user's clients; None: of all who are not offline."""
        changed: list[str] = []
        for other, serial in reversed(self._changed.items()):
            if since is not None and serial <= since:
                break
            if since is not None or self._shown[other][0] != "offline":
                changed.append(other)
        if not changed:
            return []
        concerns = {user_id, *direct.contacts(self._db.read, user_id)}
        return [
            {"type": "m.presence", "sender": other, "content": self.of(other)}
            for other in changed
            if other in concerns
        ][:MAX_NEWS]

    # -- other servers -----------------------------------------------------------------------------

    async def receive(self, origin: str, content: JsonObject) -> None:
        """An m.presence EDU; what is not right about it is ignored."""
        push = content.get("push")
        for item in push[:MAX_IN_EDU] if isinstance(push, list) else ():
            user_id = item.get("user_id") if isinstance(item, dict) else None
            if is_user_id(user_id) and domain_of(user_id) == origin and item.get("presence") in STATES:
                self._receive(user_id, item)
        await trio.lowlevel.checkpoint()

    def _receive(self, user_id: str, item: JsonObject) -> None:
        if user_id not in self._users and (
            item["presence"] == "offline" or not self._local_contacts(user_id)
        ):
            return
        message, ago = item.get("status_msg"), item.get("last_active_ago")
        now = self._runtime.clock.now_ms()
        new = UserPresence(
            item["presence"],
            message if isinstance(message, str) and fits(message, MAX_STATUS) else None,
            now - (ago if type(ago) is int and 0 <= ago <= now else 0),
            now,
            item.get("currently_active") is True,
        )
        self._put(user_id, new)
        remote = (
            [each for each in self._users if not self._is_ours(each)] if len(self._users) > MAX_REMOTE else []
        )
        for oldest in remote[: max(0, len(remote) - MAX_REMOTE)]:
            self._forget(oldest)

    def _forget(self, user_id: str) -> None:
        for table in (self._users, self._shown, self._changed, self._sent_ms):
            table.pop(user_id, None)

    # -- time --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Notice who has gone, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            for user_id in list(self._users):
                self._tell(user_id)


def _state_at(known: UserPresence, now: int, *, local: bool) -> str:
    silent = now - known.heard_ms
    if known.presence == "offline" or silent > GONE_MS:
        return "offline"
    if local and known.presence == "online" and silent > ACTIVE_MS:
        return "unavailable"
    return known.presence


def _nobody(keys: Iterable[str]) -> None:
    return None
