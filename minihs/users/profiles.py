# SPDX-License-Identifier: Apache-2.0
"""Profiles: of our users from the database, of others from their servers (client-server-api, "Profiles")."""

from __future__ import annotations

import re

from minihs.matrix.canonical import JsonObject, dumps
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param, missing_param, not_found
from minihs.matrix.federation_errors import FederationError, RemoteRefused
from minihs.matrix.ids import domain_of, fits, is_user_id
from minihs.requester import Requester
from minihs.store import profiles
from minihs.store import users as user_store
from minihs.store.database import Database, Tx
from minihs.users import ports
from minihs.users.sessions import suspended_error

DISPLAYNAME = "displayname"
AVATAR_URL = "avatar_url"
TIME_ZONE = "m.tz"

MAX_DISPLAYNAME = 1024
"""Bytes; it goes into every member event of the user."""

MAX_AVATAR_URL = 1000
MAX_TIME_ZONE = 100
MAX_PROFILE_BYTES = 64 * 1024
MAX_FIELD_NAME = 255

_FIELD_NAME = re.compile(r"[a-z][a-z0-9_.-]*", re.ASCII)
"""Common namespaced identifier grammar (appendices)."""


class Profiles:
    """The profiles that this server knows or can ask for."""

    def __init__(
        self, db: Database, server_name: str, rooms: ports.Rooms, federation: ports.Federation | None
    ) -> None:
        self._db = db
        self._server_name = server_name
        self._rooms = rooms
        self._federation = federation

    async def get(self, user_id: str, field: str | None = None, *, asker: Requester | None) -> JsonObject:
        """A profile, or one field of it; M_NOT_FOUND for unknown users and fields.

        Only our users can make us ask other servers.
        """
        if not is_user_id(user_id):
            raise invalid_param("This is not a user id.")
        if field is not None:
            check_field_name(field)
        if domain_of(user_id) == self._server_name:
            return self.local(user_id, field)
        if asker is None:
            raise forbidden("Log in to see profiles of other servers' users.")
        profile = await self._ask(user_id, field)
        if field is None:
            return profile
        if field not in profile:
            raise not_found("The user has no such profile field.")
        return {field: profile[field]}

    def local(self, user_id: str, field: str | None = None) -> JsonObject:
        """The same for our own users only: what other servers may ask for."""
        if not user_store.is_active(self._db.read, user_id):
            raise not_found("There is no such user.")
        profile = profiles.get(self._db.read, user_id)
        if field is None:
            return profile
        if field not in profile:
            raise not_found("The user has no such profile field.")
        return {field: profile[field]}

    async def _ask(self, user_id: str, field: str | None) -> JsonObject:
        if self._federation is None:
            raise not_found("The user's server can't be asked.")
        # Only the two old fields can be asked for by name on servers before 1.16, so others are picked out
        # here.
        asked = field if field in (DISPLAYNAME, AVATAR_URL) else None
        try:
            profile = await self._federation.query_profile(domain_of(user_id), user_id, asked)
        except RemoteRefused as error:
            if error.status == 403:
                raise forbidden("The user's server doesn't show this profile.") from error
            raise not_found("There is no such user.") from error
        except FederationError as error:
            raise MatrixError(502, "M_UNKNOWN", "The user's server can't be reached.") from error
        return {
            name: value
            for name, value in profile.items()
            if fits(name, MAX_FIELD_NAME)
            and (name not in (DISPLAYNAME, AVATAR_URL) or isinstance(value, str))
        }

    async def set_field(self, requester: Requester, user_id: str, field: str, body: JsonObject) -> None:
        """PUT /profile/{userId}/{keyName}. An empty name or picture is none."""
        self._check_own(requester, user_id)
        check_field_name(field)
        if field not in body:
            raise missing_param(f"{field} is missing.")
        value = body[field]
        check_value(field, value)
        if field in (DISPLAYNAME, AVATAR_URL) and value == "":
            await self._write(user_id, field, None)
        else:
            await self._write(user_id, field, dumps(value).decode())

    async def delete_field(self, requester: Requester, user_id: str, field: str) -> None:
        self._check_own(requester, user_id)
        check_field_name(field)
        await self._write(user_id, field, None)

    def _check_own(self, requester: Requester, user_id: str) -> None:
        if requester.user_id != user_id:
            raise forbidden("You can only change your own profile.")
        if requester.is_suspended:
            raise suspended_error()

    async def _write(self, user_id: str, field: str, value: str | None) -> None:
        before = profiles.display(self._db.read, user_id)

        def write(tx: Tx) -> None:
            if value is None:
                profiles.delete_field(tx, user_id, field)
                return
            profiles.set_field(tx, user_id, field, value)
            if profiles.size(tx, user_id) > MAX_PROFILE_BYTES:
                raise MatrixError(400, "M_PROFILE_TOO_LARGE", "A profile has at most 64 KiB.")

        await self._db.write(write)
        if profiles.display(self._db.read, user_id) != before:
            await self._rooms.update_profile(user_id)


def check_field_name(field: str) -> None:
    if not fits(field, MAX_FIELD_NAME):
        raise MatrixError(400, "M_KEY_TOO_LARGE", "The name of a profile field has at most 255 bytes.")
    if field not in (DISPLAYNAME, AVATAR_URL) and not _FIELD_NAME.fullmatch(field):
        raise invalid_param("This can't be the name of a profile field.")


def check_value(field: str, value: object) -> None:
    if field not in (DISPLAYNAME, AVATAR_URL, TIME_ZONE):
        return
    if not isinstance(value, str):
        raise bad_json(f"{field} must be a string.")
    if field == DISPLAYNAME and not fits(value, MAX_DISPLAYNAME):
        raise invalid_param(f"A display name has at most {MAX_DISPLAYNAME} bytes.")
    if field == AVATAR_URL and value and not (value.startswith("mxc://") and fits(value, MAX_AVATAR_URL)):
        raise invalid_param("avatar_url must be an mxc:// URI.")
    if field == TIME_ZONE and not fits(value, MAX_TIME_ZONE):
        raise invalid_param("m.tz is too long.")
