# SPDX-License-Identifier: Apache-2.0
"""A room's history: /messages and /context (client-server-api, "Getting events for a room")."""

from __future__ import annotations

from minihs.matrix.errors import invalid_param
from minihs.sync.filters import ALL, EventFilter, parse_event_filter, parse_inline
from minihs.sync.messages import MAX_PAGE, PageOptions
from minihs.sync.room_reads import MAX_CONTEXT
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

ROOM = "/_matrix/client/v3/rooms/{room_id}"


@routes.get(ROOM + "/messages", auth=CLIENT)
async def messages(call: Call, room_id: str) -> JsonObject:
    direction = call.query.require("dir")
    if direction not in ("b", "f"):
        raise invalid_param('dir must be "b" or "f".')
    wanted = _filter(call)
    limit = wanted.limit if wanted.limit is not None and call.query.get("limit") is None else None
    options = PageOptions(
        forward=direction == "f",
        limit=max(
            1, call.query.get_int("limit", 10, max=MAX_PAGE) if limit is None else min(limit, MAX_PAGE)
        ),
        filter=wanted,
        start=call.query.get("from") or None,
        stop=call.query.get("to") or None,
    )
    return await call.services.sync.messages.page(call.requester, room_id, options)


@routes.get(ROOM + "/context/{event_id}", auth=CLIENT)
async def context(call: Call, room_id: str, event_id: str) -> JsonObject:
    limit = call.query.get_int("limit", 10, max=MAX_CONTEXT)
    return await call.services.sync.reads.context(call.requester, room_id, event_id, limit, _filter(call))


def _filter(call: Call) -> EventFilter:
    text = call.query.get("filter")
    return parse_event_filter(parse_inline(text)) if text else ALL
