# SPDX-License-Identifier: Apache-2.0
"""Aliases and the published room directory (client-server-api, "Room aliases", "Published room
directory")."""

from __future__ import annotations

from minihs.matrix.errors import bad_json, invalid_param, missing_param
from minihs.matrix.ids import is_room_alias
from minihs.sync.public_rooms import options_from
from minihs.web.routing import CLIENT, NONE, Call, JsonObject, Routes

routes = Routes()

V3 = "/_matrix/client/v3"
ALIAS = V3 + "/directory/room/{alias}"
LISTED = V3 + "/directory/list/room/{room_id}"


@routes.get(ALIAS, auth=NONE, limit="lookup")
async def resolve(call: Call, alias: str) -> JsonObject:
    _check(alias)
    room_id, servers = await call.services.rooms.resolve_alias(alias)
    return {"room_id": room_id, "servers": servers}


@routes.put(ALIAS, auth=CLIENT)
async def add(call: Call, alias: str) -> JsonObject:
    _check(alias)
    room_id = (await call.json()).get("room_id")
    if room_id is None:
        raise missing_param("room_id is missing.")
    if not isinstance(room_id, str):
        raise bad_json("room_id must be a string.")
    await call.services.rooms.set_alias(call.requester.user_id, alias, room_id)
    return {}


@routes.delete(ALIAS, auth=CLIENT)
async def remove(call: Call, alias: str) -> JsonObject:
    _check(alias)
    requester = call.requester
    await call.services.rooms.delete_alias(requester.user_id, alias, is_admin=requester.is_admin)
    return {}


@routes.get(V3 + "/rooms/{room_id}/aliases", auth=CLIENT)
async def aliases(call: Call, room_id: str) -> JsonObject:
    return {"aliases": call.services.sync.reads.aliases(call.requester, room_id)}


@routes.get(LISTED, auth=NONE, limit="lookup")
async def visibility(call: Call, room_id: str) -> JsonObject:
    return {"visibility": call.services.sync.public_rooms.visibility(room_id)}


@routes.put(LISTED, auth=CLIENT)
async def set_visibility(call: Call, room_id: str) -> JsonObject:
    body = await call.json(optional=True)
    await call.services.sync.public_rooms.set_visibility(
        call.requester, room_id, body.get("visibility", "public")
    )
    return {}


@routes.get(V3 + "/publicRooms", auth=NONE, limit="lookup")
async def public_rooms(call: Call) -> JsonObject:
    _check_server(call)
    options = options_from(call.query.get_int("limit"), call.query.get("since"), None)
    return await call.services.sync.public_rooms.list(options)


@routes.post(V3 + "/publicRooms", auth=CLIENT, limit="lookup")
async def search_public_rooms(call: Call) -> JsonObject:
    _check_server(call)
    body = await call.json(optional=True)
    options = options_from(body.get("limit"), body.get("since"), body.get("filter"))
    return await call.services.sync.public_rooms.list(options)


def _check(alias: str) -> None:
    if not is_room_alias(alias):
        raise invalid_param("That is no room alias.")


def _check_server(call: Call) -> None:
    """Directories of other servers are not asked."""
    server = call.query.get("server")
    if server and server != call.services.config.server_name:
        raise invalid_param("This server shows only its own directory.")
