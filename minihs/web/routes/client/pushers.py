# SPDX-License-Identifier: Apache-2.0
"""Where notifications are sent, and which there were (client-server-api, "Push Notifications")."""

from __future__ import annotations

from minihs.matrix.errors import invalid_param
from minihs.sync.notifications import MAX_NOTIFICATIONS
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

V3 = "/_matrix/client/v3"


@routes.get(V3 + "/pushers", auth=CLIENT)
async def pushers(call: Call) -> JsonObject:
    return {"pushers": call.services.pushers.of_user(call.requester.user_id)}


@routes.post(V3 + "/pushers/set", auth=CLIENT)
async def set_pusher(call: Call) -> JsonObject:
    await call.services.pushers.set(call.requester, await call.json())
    return {}


@routes.get(V3 + "/notifications", auth=CLIENT)
async def notifications(call: Call) -> JsonObject:
    only = call.query.get("only") or None
    if only not in (None, "highlight"):
        raise invalid_param('only must be "highlight", if anything.')
    return await call.services.sync.notifications.page(
        call.requester,
        limit=call.query.get_int("limit", 20, min=1, max=MAX_NOTIFICATIONS),
        start=call.query.get("from") or None,
        highlights_only=only is not None,
    )
