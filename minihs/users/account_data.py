# SPDX-License-Identifier: Apache-2.0
"""What clients keep on the server: account data, tags, filters (client-server-api, "Client Config",
"Room Tagging", "Filtering")."""

from __future__ import annotations

import hashlib

from minihs.matrix.canonical import BadJson, JsonObject, dumps, encode
from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param, not_found, too_large
from minihs.matrix.fields import identifier
from minihs.matrix.ids import fits, is_room_id
from minihs.requester import Requester
from minihs.store import account_data, filters
from minihs.store.account_data import GLOBAL
from minihs.store.database import Database, Tx

TAGS = "m.tag"
FULLY_READ = "m.fully_read"

SERVER_MANAGED = (FULLY_READ, account_data.PUSH_RULES)
"""Types that have endpoints of their own."""

MAX_CONTENT_BYTES = 256 * 1024
MAX_FILTER_BYTES = 64 * 1024
MAX_TAGS = 100


class ClientData:
    """The account data, tags and filters of one server's users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, requester: Requester, user_id: str, type: str, room_id: str = GLOBAL) -> JsonObject:
        check_own(requester, user_id)
        check_room(room_id)
        content = account_data.get(self._db.read, user_id, type, room_id)
        if content is None:
            raise not_found("There is no account data of this type.")
        return content

    async def put(
        self, requester: Requester, user_id: str, type: str, content: JsonObject, room_id: str = GLOBAL
    ) -> None:
        check_own(requester, user_id)
        check_room(room_id)
        identifier(type, "type")
        if type in SERVER_MANAGED:
            raise MatrixError(405, "M_BAD_JSON", f"{type} can't be set through this API.")
        text = dumps(content).decode()
        if len(text.encode()) > MAX_CONTENT_BYTES:
            raise too_large(f"The content has more than {MAX_CONTENT_BYTES} bytes.")
        await self._db.write(lambda tx: account_data.put(tx, user_id, type, text, room_id))

    def tags(self, requester: Requester, user_id: str, room_id: str) -> JsonObject:
        check_own(requester, user_id)
        check_room(room_id)
        content = account_data.get(self._db.read, user_id, TAGS, room_id) or {}
        return {"tags": tags_in(content)}

    async def put_tag(
        self, requester: Requester, user_id: str, room_id: str, tag: str, content: JsonObject
    ) -> None:
        check_own(requester, user_id)
        check_room(room_id)
        identifier(tag, "The tag")
        order = content.get("order")
        if order is not None and (isinstance(order, bool) or not isinstance(order, int | float)):
            raise bad_json("order must be a number.")
        if len(dumps(content)) > 1024:
            raise too_large("The content of a tag has at most 1024 bytes.")

        def write(tx: Tx) -> None:
            tags = tags_in(account_data.get(tx, user_id, TAGS, room_id) or {})
            if len(tags) >= MAX_TAGS and tag not in tags:
                raise MatrixError(400, "M_LIMIT_EXCEEDED", f"A room can have {MAX_TAGS} tags.")
            put_tags(tx, user_id, room_id, {**tags, tag: content})

        await self._db.write(write)

    async def delete_tag(self, requester: Requester, user_id: str, room_id: str, tag: str) -> None:
        check_own(requester, user_id)
        check_room(room_id)

        def write(tx: Tx) -> None:
            tags = tags_in(account_data.get(tx, user_id, TAGS, room_id) or {})
            if tag in tags:
                put_tags(tx, user_id, room_id, {name: tags[name] for name in tags if name != tag})

        await self._db.write(write)

    async def add_filter(self, requester: Requester, user_id: str, filter: JsonObject) -> str:
        """The id of a filter; the route has checked its fields."""
        check_own(requester, user_id)
        try:
            text = encode(filter)
        except BadJson as error:
            raise bad_json("The filter has no canonical JSON form.") from error
        if len(text) > MAX_FILTER_BYTES:
            raise too_large(f"A filter has at most {MAX_FILTER_BYTES} bytes.")
        digest = hashlib.sha256(text).digest()
        known = filters.find(self._db.read, user_id, digest)
        if known is None:
            known = await self._db.write(lambda tx: filters.add(tx, user_id, digest, text.decode()))
        return str(known)

    def filter(self, requester: Requester, user_id: str, filter_id: str) -> JsonObject:
        check_own(requester, user_id)
        if not (filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 19):
            raise not_found("There is no such filter.")
        found = filters.get(self._db.read, user_id, int(filter_id))
        if found is None:
            raise not_found("There is no such filter.")
        return found


def check_own(requester: Requester, user_id: str) -> None:
    if requester.user_id != user_id:
        raise forbidden("This belongs to another user.")


def check_room(room_id: str) -> None:
    if room_id != GLOBAL and not is_room_id(room_id):
        raise invalid_param("This is not a room id.")
    if not fits(room_id):
        raise invalid_param("The room id is too long.")


def tags_in(content: JsonObject) -> JsonObject:
    """The tags of an m.tag event, which clients may also have written by hand."""
    tags = content.get("tags")
    return tags if isinstance(tags, dict) else {}


def put_tags(tx: Tx, user_id: str, room_id: str, tags: JsonObject) -> None:
    account_data.put(tx, user_id, TAGS, dumps({"tags": tags}).decode(), room_id)
