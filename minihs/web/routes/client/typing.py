# SPDX-License-Identifier: Apache-2.0
"""Typing notifications (client-server-api, "Typing Notifications")."""

from __future__ import annotations

from minihs.matrix.errors import bad_json, forbidden
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.put("/_matrix/client/v3/rooms/{room_id}/typing/{user_id}", auth=CLIENT)
async def typing(call: Call, room_id: str, user_id: str) -> JsonObject:
    if user_id != call.requester.user_id:
        raise forbidden("You can't type for somebody else.")
    body = await call.json()
    is_typing, timeout = body.get("typing"), body.get("timeout")
    if not isinstance(is_typing, bool):
        raise bad_json("typing must be true or false.")
    if timeout is not None and type(timeout) is not int:
        raise bad_json("timeout must be a whole number.")
    call.services.sync.typing.set_typing(user_id, room_id, typing=is_typing, timeout_ms=timeout)
    return {}
