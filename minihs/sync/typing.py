# SPDX-License-Identifier: Apache-2.0
"""Who is typing where (client-server-api and server-server-api, "Typing Notifications").

Kept in memory only, each entry with a deadline. There is no task for the deadlines: a waiting /sync asks for
the next one (`next_expiry`), waits no longer than that, and calls `expire`.

Changes are numbered by `serial`, which /sync tokens carry. It starts from the clock, so a token from before a
restart is always older than what happens after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import trio

from minihs.matrix.errors import forbidden, invalid_param
from minihs.matrix.ids import domain_of, is_room_id, is_user_id
from minihs.runtime import Runtime
from minihs.store import memberships, rooms
from minihs.store.database import Reader
from minihs.sync.notifier import Notifier
from minihs.sync.ports import EduQueue, ServerAcls

DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 120_000

REMOTE_TIMEOUT_MS = 60_000
"""Other servers don't say for how long; they are to repeat themselves meanwhile."""

MAX_TYPING = 100
"""Users typing in one room that are kept; more can't be shown anyway."""


class Typing:
    """Lives on the event loop."""

    def __init__(
        self,
        db: Reader,
        runtime: Runtime,
        notifier: Notifier,
        our_name: str,
        *,
        edus: EduQueue,
        acls: ServerAcls,
    ) -> None:
        self._db = db
        self._notifier = notifier
        self._our_name = our_name
        self._edus = edus
        self._acls = acls
        # room id → user id → deadline on trio's clock
        self._rooms: dict[str, dict[str, float]] = {}
        # room id → serial of the last change; kept when nobody types any more, so that clients are told of it
        self._changed: dict[str, int] = {}
        self.serial = runtime.clock.now_ms()
        self.first_serial = self.serial
        """Tokens below this are from before the start: what they say about typing is forgotten."""

    def users(self, room_id: str) -> list[str]:
        return sorted(self._rooms.get(room_id, ()))

    def changed_since(self, serial: int) -> set[str]:
        """Rooms in which something changed after `serial`."""
        if serial >= self.serial:
            return set()
        return {room_id for room_id, changed in self._changed.items() if changed > serial}

    def next_expiry(self) -> float:
        """When (trio's clock) the next user stops typing by themselves; infinite: nobody types."""
        return min((at for users in self._rooms.values() for at in users.values()), default=float("inf"))

    def expire(self) -> None:
        """Drop those whose time is over."""
        now = trio.current_time()
        for room_id, users in list(self._rooms.items()):
            over = [user_id for user_id, deadline in users.items() if deadline <= now]
            for user_id in over:
                self._remove(room_id, user_id)
            if over:
                self._note(room_id)

    def set_typing(self, user_id: str, room_id: str, *, typing: bool, timeout_ms: int | None) -> None:
        """One of our users starts, goes on or stops typing. M_FORBIDDEN if they are not in the room."""
        if timeout_ms is not None and timeout_ms <= 0 and typing:
            raise invalid_param("timeout must be positive.")
        room = rooms.get(self._db, room_id)
        member = None if room is None else memberships.get(self._db, room.room_nid, user_id)
        if room is None or member is None or member.membership != "join":
            raise forbidden("You are not in this room.")
        self.expire()
        duration = min(DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms, MAX_TIMEOUT_MS)
        was = user_id in self._rooms.get(room_id, {})
        self._set(room_id, user_id, typing=typing, duration_ms=duration)
        if typing or was:
            self._tell_servers(room.room_nid, room_id, user_id, typing=typing)

    def stop(self, user_id: str, room_id: str) -> None:
        """The user said something or left: they are not typing any more. Other servers see that by
        themselves."""
        if user_id in self._rooms.get(room_id, {}):
            self._set(room_id, user_id, typing=False, duration_ms=0)

    def receive_typing(self, origin: str, content: object) -> None:
        """An m.typing EDU of another server; what is not right about it makes it be ignored."""
        if not isinstance(content, dict):
            return
        room_id, user_id, typing = content.get("room_id"), content.get("user_id"), content.get("typing")
        if not isinstance(room_id, str) or not is_room_id(room_id) or type(typing) is not bool:
            return
        if not isinstance(user_id, str) or not is_user_id(user_id) or domain_of(user_id) != origin:
            return
        room = rooms.get(self._db, room_id)
        if room is None or not room.resident or not self._acls.allows(room_id, origin):
            return
        if not memberships.may_be_joined(self._db, room.room_nid, user_id):
            return
        self.expire()
        self._set(room_id, user_id, typing=typing, duration_ms=REMOTE_TIMEOUT_MS)

    def _set(self, room_id: str, user_id: str, *, typing: bool, duration_ms: int) -> None:
        users = self._rooms.get(room_id, {})
        if typing:
            if user_id not in users and len(users) >= MAX_TYPING:
                return
            is_new = user_id not in users
            self._rooms.setdefault(room_id, users)[user_id] = trio.current_time() + duration_ms / 1000
            if is_new:
                self._note(room_id)
            else:
                # Nothing to show, but a waiting /sync must learn that the deadline it waits for has moved: it
                # finds out by itself when it wakes at the old one.
                return
        elif user_id in users:
            self._remove(room_id, user_id)
            self._note(room_id)

    def _remove(self, room_id: str, user_id: str) -> None:
        users = self._rooms[room_id]
        del users[user_id]
        if not users:
            del self._rooms[room_id]

    def next_serial(self) -> int:
        """A number above all before it, for whatever else is in memory only and told by /sync."""
        self.serial += 1
        return self.serial

    def _note(self, room_id: str) -> None:
        self._changed[room_id] = self.next_serial()
        self._notifier.wake((f"room:{room_id}",))

    def _tell_servers(self, room_nid: int, room_id: str, user_id: str, *, typing: bool) -> None:
        others = others_in(self._db, room_nid, self._our_name)
        if others:
            content: dict[str, Any] = {"room_id": room_id, "user_id": user_id, "typing": typing}
            self._edus.queue_edu(others, "m.typing", content, key=("m.typing", room_id, user_id))


def others_in(db: Reader, room_nid: int, our_name: str) -> list[str]:
    """The other servers in a room."""
    return [host for host in rooms.hosts(db, room_nid) if host != our_name]


def typing_event(users: Iterable[str]) -> dict[str, Any]:
    return {"type": "m.typing", "content": {"user_ids": list(users)}}
