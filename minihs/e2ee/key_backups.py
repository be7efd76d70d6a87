# SPDX-License-Identifier: Apache-2.0
"""Server-side backups of room keys (client-server-api, "Server-side key backups")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject, dumps
from minihs.matrix.errors import MatrixError, bad_json, invalid_param, missing_param, not_found, too_large
from minihs.matrix.fields import flag, identifier, number, optional_text, required_object, required_text
from minihs.matrix.ids import is_room_id
from minihs.store import key_backups
from minihs.store.database import Database, Reader, Tx
from minihs.store.key_backups import BackedUpKey, Backup

MAX_AUTH_DATA_BYTES = 64 * 1024
MAX_SESSION_BYTES = 64 * 1024
MAX_KEYS_IN_REQUEST = 10_000


class KeyBackups:
    """The key backups of one server's users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Versions

    async def create(self, user_id: str, body: JsonObject) -> str:
        algorithm = required_text(body, "algorithm")
        auth_data = checked_auth_data(body)
        return str(await self._db.write(lambda tx: key_backups.add(tx, user_id, algorithm, auth_data)))

    def version(self, user_id: str, version: str | None = None) -> JsonObject:
        """One version, or the current one."""
        if version is None:
            backup = key_backups.current(self._db.read, user_id)
            if backup is None:
                raise not_found("No current backup version.")
            return backup.to_json()
        return existing(self._db.read, user_id, version).to_json()

    async def update(self, user_id: str, version: str, body: JsonObject) -> None:
        algorithm = required_text(body, "algorithm")
        auth_data = checked_auth_data(body)
        if optional_text(body, "version") not in (None, version):
            raise invalid_param("The version in the body does not match.")

        def write(tx: Tx) -> None:
            backup = existing(tx, user_id, version)
            if backup.algorithm != algorithm:
                raise invalid_param("Algorithm does not match.")
            key_backups.set_auth_data(tx, user_id, backup.version, auth_data)

        await self._db.write(write)

    async def delete(self, user_id: str, version: str) -> None:
        """Deleting one that was deleted before succeeds."""

        def write(tx: Tx) -> None:
            number = version_number(version)
            if key_backups.get(tx, user_id, number) is None:
                raise unknown_version()
            key_backups.delete(tx, user_id, number)

        await self._db.write(write)

    # Keys

    async def put(
        self,
        user_id: str,
        version: str | None,
        body: JsonObject,
        room_id: str | None = None,
        session_id: str | None = None,
    ) -> JsonObject:
        """PUT /room_keys/keys and its two narrower forms."""
        keys = checked_keys(body, room_id, session_id)
        wanted = required_version(version)

        def write(tx: Tx) -> JsonObject:
            current = key_backups.current(tx, user_id)
            if current is None:
                raise not_found("No current backup version.")
            if str(current.version) != wanted:
                raise MatrixError(
                    403,
                    "M_WRONG_ROOM_KEYS_VERSION",
                    "Wrong backup version.",
                    current_version=str(current.version),
                )
            key_backups.put_keys(tx, user_id, current.version, keys)
            return state_of(existing(tx, user_id, wanted))

        return await self._db.write(write)

    async def get(
        self, user_id: str, version: str | None, room_id: str | None = None, session_id: str | None = None
    ) -> JsonObject:
        """GET /room_keys/keys and its narrower forms. Only a single key can be M_NOT_FOUND."""
        number = existing(self._db.read, user_id, required_version(version)).version
        # A whole backup can hold tens of thousands of keys.
        keys = await self._db.scan(lambda db: key_backups.keys(db, user_id, number, room_id, session_id))
        if session_id is not None:
            if not keys:
                raise not_found("Key not found.")
            return keys[0].to_json()
        if room_id is not None:
            return {"sessions": {key.session_id: key.to_json() for key in keys}}
        by_room: dict[str, JsonObject] = {}
        for key in keys:
            by_room.setdefault(key.room_id, {"sessions": {}})["sessions"][key.session_id] = key.to_json()
        return {"rooms": by_room}

    async def delete_keys(
        self, user_id: str, version: str | None, room_id: str | None = None, session_id: str | None = None
    ) -> JsonObject:
        wanted = required_version(version)

        def write(tx: Tx) -> JsonObject:
            number = existing(tx, user_id, wanted).version
            key_backups.delete_keys(tx, user_id, number, room_id, session_id)
            return state_of(existing(tx, user_id, wanted))

        return await self._db.write(write)


def existing(db: Reader, user_id: str, version: str) -> Backup:
    backup = key_backups.get(db, user_id, version_number(version))
    if backup is None or backup.deleted:
        raise unknown_version()
    return backup


def version_number(version: str) -> int:
    """What we gave out are small numbers; anything else is unknown."""
    if not (version.isascii() and version.isdigit() and len(version) < 19):
        raise unknown_version()
    return int(version)


def required_version(version: str | None) -> str:
    if version is None:
        raise missing_param("The query parameter version is missing.")
    return version


def unknown_version() -> MatrixError:
    return not_found("Unknown backup version.")


def state_of(backup: Backup) -> JsonObject:
    return {"count": backup.key_count, "etag": str(backup.etag)}


def checked_auth_data(body: JsonObject) -> str:
    text = dumps(required_object(body, "auth_data")).decode()
    if len(text) > MAX_AUTH_DATA_BYTES:
        raise too_large("auth_data is too large.")
    return text


def checked_keys(body: JsonObject, room_id: str | None, session_id: str | None) -> list[BackedUpKey]:
    """The keys of a request: all rooms, one room, or one session."""
    if room_id is None:
        rooms = required_object(body, "rooms")
    elif session_id is None:
        rooms = {room_id: body}
    else:
        rooms = {room_id: {"sessions": {session_id: body}}}
    keys = []
    for room, of_room in rooms.items():
        if not is_room_id(room):
            raise invalid_param("One of the rooms is not a room id.")
        if not isinstance(of_room, dict):
            raise bad_json("rooms must map room ids to objects.")
        for session, key in required_object(of_room, "sessions").items():
            keys.append(checked_key(room, session, key))
            if len(keys) > MAX_KEYS_IN_REQUEST:
                raise too_large(f"At most {MAX_KEYS_IN_REQUEST} keys can be stored at once.")
    return keys


def checked_key(room_id: str, session_id: str, key: object) -> BackedUpKey:
    if not isinstance(key, dict):
        raise bad_json("The data of a key must be an object.")
    identifier(session_id, "The session id")
    first_message_index, forwarded_count = number(key, "first_message_index"), number(key, "forwarded_count")
    if first_message_index is None or forwarded_count is None or "is_verified" not in key:
        raise missing_param("first_message_index, forwarded_count or is_verified is missing.")
    session_data = dumps(required_object(key, "session_data")).decode()
    if len(session_data) > MAX_SESSION_BYTES:
        raise too_large("session_data is too large.")
    return BackedUpKey(
        room_id, session_id, first_message_index, forwarded_count, flag(key, "is_verified"), session_data
    )
