# SPDX-License-Identifier: Apache-2.0
"""What rooms need from other servers, as they see it. `minihs.federation` implements these.

Answers are what the other server said, nothing of it checked beyond being a JSON object: `rooms.admission`
checks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event


class Keys(Protocol):
    """Signature checks; fetches keys as needed."""

    async def verify_events(self, events: Sequence[Event]) -> list[Exception | None]:
        """For each event None, or why one of the signatures that it must have does not hold."""
        ...


class SpooledState(Protocol):
    """A state with its auth chain, on disk: sequences of undecoded JSON."""

    @property
    def state(self) -> Sequence[bytes | memoryview]: ...

    @property
    def auth_chain(self) -> Sequence[bytes | memoryview]: ...


class SpooledJoin(SpooledState, Protocol):
    """An answer to send_join."""

    @property
    def event(self) -> JsonObject | None: ...

    @property
    def members_omitted(self) -> bool: ...

    @property
    def servers_in_room(self) -> list[str] | None: ...


class Federation(Protocol):
    """Calls to other servers. Each raises `minihs.matrix.federation_errors.FederationError`."""

    async def make_join(
        self, host: str, room_id: str, user_id: str, versions: Collection[str]
    ) -> JsonObject: ...

    def send_join(
        self, host: str, room_id: str, event_id: str, pdu: JsonObject, *, omit_members: bool = False
    ) -> AbstractAsyncContextManager[SpooledJoin]: ...

    def state_at(self, host: str, room_id: str, event_id: str) -> AbstractAsyncContextManager[SpooledState]:
        """The state before an event; `get_state` for states of any size."""
        ...

    async def make_leave(self, host: str, room_id: str, user_id: str) -> JsonObject: ...

    async def send_leave(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> None: ...

    async def make_knock(
        self, host: str, room_id: str, user_id: str, versions: Collection[str]
    ) -> JsonObject: ...

    async def send_knock(self, host: str, room_id: str, event_id: str, pdu: JsonObject) -> JsonObject: ...

    async def invite(
        self,
        host: str,
        room_id: str,
        event_id: str,
        version: str,
        pdu: JsonObject,
        stripped: list[JsonObject],
    ) -> JsonObject:
        """The signed event."""
        ...

    async def policy_sign(self, host: str, pdu: JsonObject) -> JsonObject:
        """{server: {key id: signature}}"""
        ...

    async def exchange_third_party_invite(self, host: str, room_id: str, pdu: JsonObject) -> None: ...

    async def get_missing_events(
        self,
        host: str,
        room_id: str,
        *,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int = 0,
    ) -> list[Any]: ...

    async def get_event(self, host: str, event_id: str) -> Any: ...

    async def get_state_ids(self, host: str, room_id: str, event_id: str) -> tuple[list[str], list[str]]:
        """(pdu_ids, auth_chain_ids)"""
        ...

    async def get_state(self, host: str, room_id: str, event_id: str) -> tuple[list[Any], list[Any]]:
        """(pdus, auth_chain)"""
        ...

    async def get_event_auth(self, host: str, room_id: str, event_id: str) -> list[Any]: ...

    async def backfill(self, host: str, room_id: str, event_ids: Sequence[str], limit: int) -> list[Any]: ...

    async def timestamp_to_event(self, host: str, room_id: str, ts: int, direction: str) -> tuple[str, int]:
        """(event id, its origin_server_ts)"""
        ...

    async def query_directory(self, host: str, alias: str) -> tuple[str, list[str]]:
        """(room_id, servers)"""
        ...


class LocalUsers(Protocol):
    """What rooms ask about the accounts of this server."""

    def exists(self, user_id: str) -> bool:
        """An account that is not deactivated."""
        ...

    def member_profile(self, user_id: str) -> JsonObject:
        """displayname and avatar_url, those that are set, as a member event has them."""
        ...

    def check_may_invite(self, sender: str, target: str) -> None:
        """Raises MatrixError if the target does not want invites by this sender."""
        ...
