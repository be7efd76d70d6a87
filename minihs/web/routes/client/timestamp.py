# SPDX-License-Identifier: Apache-2.0
"""The event closest to a point of time (client-server-api, "Getting events for a room")."""

from __future__ import annotations

from minihs.matrix.errors import invalid_param, missing_param
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.get("/_matrix/client/v1/rooms/{room_id}/timestamp_to_event", auth=CLIENT, limit="lookup")
async def timestamp_to_event(call: Call, room_id: str) -> JsonObject:
    direction = call.query.require("dir")
    if direction not in ("b", "f"):
        raise invalid_param('dir must be "b" or "f".')
    ts = call.query.get_int("ts", min=-(2**53))
    if ts is None:
        raise missing_param("The query parameter ts is missing.")
    return await call.services.sync.by_time.closest(call.requester, room_id, ts, forward=direction == "f")
