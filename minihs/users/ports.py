# SPDX-License-Identifier: Apache-2.0
"""What accounts need from rooms and from other servers, as they see it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from minihs.matrix.canonical import JsonObject


class Rooms(Protocol):
    """`minihs.rooms` implements this. Each raises MatrixError."""

    async def update_profile(self, user_id: str) -> None:
        """Send the user's new name and picture to the rooms that it is joined to."""
        ...

    async def leave(self, user_id: str, room_id: str, reason: str | None = None) -> object: ...


class Federation(Protocol):
    """`minihs.federation` implements this. Raises minihs.matrix.federation_errors.FederationError."""

    async def query_profile(self, host: str, user_id: str, field: str | None = None) -> JsonObject: ...


class EduQueue(Protocol):
    """EDUs that may be lost, on their way to other servers. A later one with the same key takes the place of
    one that was not sent yet."""

    def queue_edu(
        self, hosts: Collection[str], edu_type: str, content: JsonObject, *, key: tuple[str, ...]
    ) -> None: ...


class NoRooms:
    """For tests and tools that have no rooms."""

    async def update_profile(self, user_id: str) -> None:
        return None

    async def leave(self, user_id: str, room_id: str, reason: str | None = None) -> object:
        return None
