# SPDX-License-Identifier: Apache-2.0
"""Reporting content (client-server-api, "Reporting Content")."""

from __future__ import annotations

from minihs.matrix.fields import number, optional_text, required_text
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

V3 = "/_matrix/client/v3"

MAX_REASON = 4000
"""Bytes."""


@routes.post(V3 + "/rooms/{room_id}/report/{event_id}", auth=CLIENT, limit="lookup")
async def report_event(call: Call, room_id: str, event_id: str) -> JsonObject:
    body = await call.json()
    number(body, "score")  # of old clients; says nothing that the reason does not
    reason = optional_text(body, "reason", limit=MAX_REASON) or ""
    await call.services.sync.reports.event(call.requester, room_id, event_id, reason)
    return {}


@routes.post(V3 + "/rooms/{room_id}/report", auth=CLIENT, limit="lookup")
async def report_room(call: Call, room_id: str) -> JsonObject:
    reason = required_text(await call.json(), "reason", limit=MAX_REASON)
    await call.services.sync.reports.room(call.requester, room_id, reason)
    return {}


@routes.post(V3 + "/users/{user_id}/report", auth=CLIENT, limit="lookup")
async def report_user(call: Call, user_id: str) -> JsonObject:
    reason = required_text(await call.json(), "reason", limit=MAX_REASON)
    await call.services.sync.reports.user(call.requester, user_id, reason)
    return {}
