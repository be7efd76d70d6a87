# SPDX-License-Identifier: Apache-2.0
"""Aliases and the published room directory (client-server-api, "Room aliases", "Published room
directory")."""

from __future__ import annotations

from minihs.matrix.errors import MatrixError, bad_json, forbidden, invalid_param, missing_param
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.ids import is_room_alias
from minihs.sync.public_rooms import options_from, remote_page
from minihs.web.routing import CLIENT, NONE, OPTIONAL_CLIENT, Call, JsonObject, Routes

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


@routes.get(V3 + "/publicRooms", auth=OPTIONAL_CLIENT, limit="lookup")
async def public_rooms(call: Call) -> JsonObject:
    body: JsonObject = {}
    if (limit := call.query.get_int("limit")) is not None:
        body["limit"] = limit
    if (since := call.query.get("since")) is not None:
        body["since"] = since
    return await _list(call, body)


@routes.post(V3 + "/publicRooms", auth=CLIENT, limit="lookup")
async def search_public_rooms(call: Call) -> JsonObject:
    return await _list(call, await call.json(optional=True))


_PASSED_ON = ("limit", "since", "filter", "third_party_instance_id", "include_all_networks")


async def _list(call: Call, body: JsonObject) -> JsonObject:
    """A page of our directory, or of that of the server named (only our users can make us ask it)."""
    network = body.get("third_party_instance_id")
    options = options_from(body.get("limit"), body.get("since"), body.get("filter"), network)
    server = call.query.get("server")
    if not server or server == call.services.config.server_name:
        return await call.services.sync.public_rooms.list(options)
    if call.maybe_requester is None:
        raise forbidden("Log in to see the rooms of other servers.")
    asked: JsonObject = {name: body[name] for name in _PASSED_ON if name in body}
    try:
        return remote_page(await call.services.federation.public_rooms(server, asked))
    except FederationError as error:
        raise MatrixError(502, "M_UNKNOWN", f"The server's room directory can't be had: {error}") from error


def _check(alias: str) -> None:
    if not is_room_alias(alias):
        raise invalid_param("That is no room alias.")
