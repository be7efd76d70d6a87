# SPDX-License-Identifier: Apache-2.0
"""Single events (client-server-api, "Getting events for a room")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.get("/_matrix/client/v3/rooms/{room_id}/event/{event_id}", auth=CLIENT)
async def event(call: Call, room_id: str, event_id: str) -> JsonObject:
    return call.services.sync.reads.event(call.requester, room_id, event_id)
