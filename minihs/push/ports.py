# SPDX-License-Identifier: Apache-2.0
"""What pushers need from the rest, as they see it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from minihs.matrix.canonical import JsonObject


@dataclass(frozen=True, slots=True)
class News:
    """An event to be pushed."""

    pos: int
    """Its place in the one stream of changes."""
    received_ts: int
    event: JsonObject
    """In the format for clients."""
    tweaks: JsonObject
    room_name: str | None = None
    room_alias: str | None = None
    sender_name: str | None = None


class Unread(Protocol):
    """What a user has not read yet. `minihs.sync` implements this."""

    def concerned(self, keys: Collection[str], users: Collection[str]) -> set[str]:
        """Those of these users for whom the keys of a commit may mean news; what was found out about their
        rooms before no longer holds."""
        ...

    async def next_after(self, user_id: str, pos: int) -> tuple[News | None, int]:
        """The oldest event after a position that notifies the user and is unread; and up to where events
        were looked at, if there is none."""
        ...

    async def count(self, user_id: str) -> int:
        """Unread messages in all rooms that notify."""
        ...

    def forget(self, user_id: str) -> None:
        """Nobody asks about this user any more."""
        ...


class Gateway(Protocol):
    """Push gateways. `minihs.federation` implements this."""

    async def notify(self, url: str, body: JsonObject) -> JsonObject:
        """The answer; `minihs.matrix.federation_errors.FederationError` if there is none that counts."""
        ...
