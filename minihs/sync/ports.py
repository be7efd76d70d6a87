# SPDX-License-Identifier: Apache-2.0
"""What sync needs from parts that it does not import: handed in by the server."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol


class EduQueue(Protocol):
    """Volatile EDUs on their way to other servers (`federation.senders`). A later EDU with the same key
    replaces an earlier one that was not sent yet."""

    def queue_edu(
        self, hosts: Collection[str], edu_type: str, content: dict[str, Any], *, key: tuple[str, ...]
    ) -> None: ...


class ServerAcls(Protocol):
    """The rooms' server ACLs (`rooms.acl`)."""

    def allows(self, room_id: str, host: str) -> bool: ...


class PresenceNews(Protocol):
    """Who is online (`users.presence`)."""

    def news(self, user_id: str, since: int | None) -> list[dict[str, Any]]:
        """m.presence events of what changed for a user after this serial; None: all there is."""
        ...


class History(Protocol):
    """Fetching history from other servers (`rooms`)."""

    async def backfill(self, room_id: str, *, before: tuple[int, int], limit: int) -> bool:
        """True: something new was stored."""
        ...


class PastByTime(Protocol):
    """Fetching events of the past by their time (`rooms`)."""

    async def fetch_at(self, room_id: str, ts: int, *, forward: bool, closer_than: int | None) -> bool:
        """True: an event closer to `ts` than the time of the one that we have was found and stored."""
        ...


class Past(History, PastByTime, Protocol):
    """Both."""


class NoPresence:
    """Nobody is ever online."""

    def news(self, user_id: str, since: int | None) -> list[dict[str, Any]]:
        return []


class OpenAcls:
    """Denies nobody."""

    def allows(self, room_id: str, host: str) -> bool:
        return True


class NoHistory:
    """Never finds any more."""

    async def backfill(self, room_id: str, *, before: tuple[int, int], limit: int) -> bool:
        return False

    async def fetch_at(self, room_id: str, ts: int, *, forward: bool, closer_than: int | None) -> bool:
        return False
