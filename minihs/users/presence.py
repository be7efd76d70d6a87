# SPDX-License-Identifier: Apache-2.0
"""Presence of our users, in memory (client-server-api, "Presence").

It is lost with a restart, and that is right: nobody is online then. Presence is not sent to other servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minihs.matrix.errors import bad_json, forbidden, invalid_param, not_found
from minihs.matrix.fields import optional_text, required_text
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import device_lists
from minihs.store import users as user_store
from minihs.store.database import Database

type JsonObject = dict[str, Any]

STATES = ("online", "offline", "unavailable")
MAX_STATUS = 1024

ACTIVE_MS = 300_000
"""After this long without a sign of life an online user counts as away."""


@dataclass(frozen=True, slots=True)
class UserPresence:
    presence: str
    status_msg: str | None
    last_active_ms: int


class Presence:
    """One entry per user of this server who was seen since the start."""

    def __init__(self, db: Database, runtime: Runtime) -> None:
        self._db = db
        self._runtime = runtime
        self._users: dict[str, UserPresence] = {}

    def set(self, requester: Requester, user_id: str, body: JsonObject) -> None:
        """PUT /presence/{userId}/status."""
        if requester.user_id != user_id:
            raise forbidden("You can only set your own presence.")
        state = required_text(body, "presence")
        if state not in STATES:
            raise invalid_param("presence must be online, offline or unavailable.")
        self._users[user_id] = UserPresence(
            state, optional_text(body, "status_msg", limit=MAX_STATUS), self._runtime.clock.now_ms()
        )

    def seen(self, user_id: str, state: str = "online") -> None:
        """The user synced with this `set_presence`; the status message stays."""
        if state not in STATES:
            raise bad_json("set_presence must be online, offline or unavailable.")
        before = self._users.get(user_id)
        self._users[user_id] = UserPresence(
            state, before.status_msg if before else None, self._runtime.clock.now_ms()
        )

    def get(self, requester: Requester, user_id: str) -> JsonObject:
        """GET /presence/{userId}/status. Of remote users nothing is known, so they are offline."""
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
        ago = max(0, self._runtime.clock.now_ms() - known.last_active_ms)
        state = "unavailable" if known.presence == "online" and ago > ACTIVE_MS else known.presence
        content: JsonObject = {"presence": state, "last_active_ago": ago}
        if known.status_msg is not None:
            content["status_msg"] = known.status_msg
        if state == "online":
            content["currently_active"] = ago < 60_000
        return content
