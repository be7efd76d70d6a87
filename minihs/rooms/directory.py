# SPDX-License-Identifier: Apache-2.0
"""Room aliases: ours, and those of other servers (spec: client-server-api, "Room aliases")."""

from __future__ import annotations

from minihs.matrix.auth_rules import PowerLevels
from minihs.matrix.errors import MatrixError, forbidden, invalid_param, not_found
from minihs.matrix.federation_errors import FederationError, RemoteRefused
from minihs.matrix.ids import domain_of, is_room_alias, is_room_id
from minihs.rooms.parts import Parts
from minihs.store import aliases, memberships, rooms


class Directory:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def resolve_local(self, alias: str) -> tuple[str, list[str]]:
        """(room id, servers in the room) of an alias of ours. Raises M_NOT_FOUND."""
        room_id = aliases.resolve(self._parts.db.read, alias)
        if room_id is None:
            raise not_found("There is no room with this alias.")
        room_nid = rooms.room_nid(self._parts.db.read, room_id)
        hosts = [] if room_nid is None else rooms.hosts(self._parts.db.read, room_nid)
        return room_id, list(dict.fromkeys([self._parts.our_name, *hosts]))[:100]

    async def resolve(self, alias: str) -> tuple[str, list[str]]:
        """The same for any alias; asks its server."""
        if not is_room_alias(alias):
            raise invalid_param("That is no room alias.")
        host = domain_of(alias)
        if host == self._parts.our_name:
            return self.resolve_local(alias)
        try:
            room_id, hosts = await self._parts.federation.query_directory(host, alias)
        except RemoteRefused as error:
            if error.status == 404:
                raise not_found("There is no room with this alias.") from error
            raise MatrixError(502, "M_UNKNOWN", f"The alias could not be looked up: {error}") from error
        except FederationError as error:
            raise MatrixError(502, "M_UNKNOWN", f"The alias could not be looked up: {error}") from error
        if not is_room_id(room_id):
            raise MatrixError(502, "M_UNKNOWN", "The alias's server answered with what is no room id.")
        return room_id, list(dict.fromkeys([host, *hosts]))[:100]

    async def set_alias(self, user_id: str, alias: str, room_id: str) -> None:
        if not is_room_alias(alias) or domain_of(alias) != self._parts.our_name:
            raise invalid_param(f"Aliases here end with :{self._parts.our_name}.")
        if not is_room_id(room_id) or rooms.room_nid(self._parts.db.read, room_id) is None:
            raise not_found("There is no such room here.")
        self._require_joined(user_id, room_id)
        now = self._parts.now()
        if not await self._parts.db.write(lambda tx: aliases.add(tx, alias, room_id, user_id, now)):
            raise MatrixError(409, "M_UNKNOWN", f"The alias {alias} exists already.")

    async def delete_alias(self, user_id: str, alias: str, *, is_admin: bool = False) -> None:
        """By whoever made it, or who may set the room's canonical alias."""
        room_id = aliases.resolve(self._parts.db.read, alias)
        if room_id is None:
            raise not_found("There is no room with this alias.")
        if not is_admin and aliases.creator(self._parts.db.read, alias) != user_id:
            self._require_joined(user_id, room_id)
            levels = PowerLevels.from_state(self._parts.head(room_id).state(self._parts.graph))
            if levels.user(user_id) < levels.event_level("m.room.canonical_alias", True):
                raise forbidden("You may not delete this alias.")
        await self._parts.db.write(lambda tx: aliases.remove(tx, alias))

    async def publish(self, user_id: str, room_id: str, published: bool, *, is_admin: bool = False) -> None:
        """List the room in our public directory, or take it off."""
        room = rooms.get(self._parts.db.read, room_id)
        if room is None or not room.resident:
            raise not_found("There is no such room here.")
        if not is_admin:
            self._require_joined(user_id, room_id)
            levels = PowerLevels.from_state(self._parts.head(room_id).state(self._parts.graph))
            if levels.user(user_id) < levels.event_level("m.room.canonical_alias", True):
                raise forbidden("You may not change whether this room is listed.")
        await self._parts.db.write(lambda tx: rooms.set_published(tx, room.room_nid, published))

    def _require_joined(self, user_id: str, room_id: str) -> None:
        room_nid = rooms.room_nid(self._parts.db.read, room_id)
        held = None if room_nid is None else memberships.get(self._parts.db.read, room_nid, user_id)
        if held is None or held.membership != "join":
            raise forbidden("You are not joined to this room.")
