# SPDX-License-Identifier: Apache-2.0
"""GET /joined_rooms (client-server-api, "Room membership")."""

from __future__ import annotations

from minihs.store import sync_rooms
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.get("/_matrix/client/v3/joined_rooms", auth=CLIENT)
async def joined_rooms(call: Call) -> JsonObject:
    return {"joined_rooms": sync_rooms.joined_room_ids(call.services.db.read, call.requester.user_id)}
