# SPDX-License-Identifier: Apache-2.0
"""Room upgrades (client-server-api, "Room Upgrades")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.post("/_matrix/client/v3/rooms/{room_id}/upgrade", auth=CLIENT, limit="join")
async def upgrade(call: Call, room_id: str) -> JsonObject:
    made = await call.services.rooms.upgrades.upgrade(
        call.active_requester.user_id, room_id, await call.json()
    )
    return {"replacement_room": made}
