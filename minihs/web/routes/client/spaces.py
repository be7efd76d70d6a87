# SPDX-License-Identifier: Apache-2.0
"""Spaces and room summaries (client-server-api, "Spaces", "Room previews")."""

from __future__ import annotations

from minihs.matrix.errors import invalid_param, not_found
from minihs.matrix.ids import is_room_alias, is_room_id
from minihs.web.routing import CLIENT, OPTIONAL_CLIENT, Call, JsonObject, Routes

routes = Routes()

UNSTABLE = "/_matrix/client/unstable"


@routes.get(
    "/_matrix/client/v1/rooms/{room_id}/hierarchy",
    also=[UNSTABLE + "/org.matrix.msc2946/rooms/{room_id}/hierarchy"],
    auth=CLIENT,
)
async def hierarchy(call: Call, room_id: str) -> JsonObject:
    return await call.services.spaces.hierarchy(
        call.requester.user_id,
        room_id,
        suggested_only=call.query.get_bool("suggested_only"),
        limit=call.query.get_int("limit", min=1),
        max_depth=call.query.get_int("max_depth", min=0),
        token=call.query.get("from"),
    )


@routes.get(
    "/_matrix/client/v1/room_summary/{room_id_or_alias}",
    also=[
        UNSTABLE + "/im.nheko.summary/summary/{room_id_or_alias}",
        UNSTABLE + "/im.nheko.summary/rooms/{room_id_or_alias}/summary",
    ],
    auth=OPTIONAL_CLIENT,
    limit="lookup",
)
async def summary(call: Call, room_id_or_alias: str) -> JsonObject:
    user = call.maybe_requester
    via = call.query.getlist("via")
    room_id = room_id_or_alias
    if is_room_alias(room_id):
        if user is None:
            room_id, hosts = call.services.rooms.directory.resolve_local(room_id)
        else:
            room_id, hosts = await call.services.rooms.resolve_alias(room_id)
        via = [*via, *hosts]
    elif not is_room_id(room_id):
        raise invalid_param("That is neither a room id nor an alias.")
    if not room_id:
        raise not_found("There is no such room.")
    return await call.services.spaces.summary(None if user is None else user.user_id, room_id, via)
