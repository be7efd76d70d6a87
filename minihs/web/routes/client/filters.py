# SPDX-License-Identifier: Apache-2.0
"""Storing filters (client-server-api, "Filtering")."""

from __future__ import annotations

from minihs.sync.filters import parse_filter
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

USER = "/_matrix/client/v3/user/{user_id}"


@routes.post(USER + "/filter", auth=CLIENT)
async def add_filter(call: Call, user_id: str) -> JsonObject:
    filter = await call.json()
    parse_filter(filter)
    return {"filter_id": await call.services.users.data.add_filter(call.requester, user_id, filter)}


@routes.get(USER + "/filter/{filter_id}", auth=CLIENT)
async def stored_filter(call: Call, user_id: str, filter_id: str) -> JsonObject:
    return call.services.users.data.filter(call.requester, user_id, filter_id)
