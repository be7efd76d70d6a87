# SPDX-License-Identifier: Apache-2.0
"""A room at a glance, without joining it (client-server-api, "Room Previews")."""

from __future__ import annotations

from minihs.sync.initial_sync import MAX_MESSAGES
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.get("/_matrix/client/v3/rooms/{room_id}/initialSync", auth=CLIENT)
async def initial_sync(call: Call, room_id: str) -> JsonObject:
    limit = call.query.get_int("limit", 10, min=1, max=MAX_MESSAGES)
    return await call.services.sync.initial_sync.room(call.requester, room_id, limit)
