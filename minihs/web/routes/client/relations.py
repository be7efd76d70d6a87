# SPDX-License-Identifier: Apache-2.0
"""What relates to an event, and the threads of a room (client-server-api, "Forming relationships between
events", "Threading")."""

from __future__ import annotations

from minihs.matrix.errors import invalid_param
from minihs.sync.relations import MAX_RELATIONS, MAX_THREADS, RelationOptions
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

V1 = "/_matrix/client/v1"
RELATIONS = V1 + "/rooms/{room_id}/relations/{event_id}"

DEFAULT_RELATIONS = 20
DEFAULT_THREADS = 20


@routes.get(RELATIONS, also=[RELATIONS + "/{rel_type}", RELATIONS + "/{rel_type}/{event_type}"], auth=CLIENT)
async def relations(
    call: Call, room_id: str, event_id: str, rel_type: str | None = None, event_type: str | None = None
) -> JsonObject:
    direction = call.query.get("dir", "b")
    if direction not in ("b", "f"):
        raise invalid_param('dir must be "b" or "f".')
    options = RelationOptions(
        limit=call.query.get_int("limit", DEFAULT_RELATIONS, min=1, max=MAX_RELATIONS),
        rel_type=rel_type,
        type=event_type,
        forward=direction == "f",
        start=call.query.get("from") or None,
        stop=call.query.get("to") or None,
        recurse=call.query.get_bool("recurse"),
    )
    return await call.services.sync.relations.children(call.requester, room_id, event_id, options)


@routes.get(V1 + "/rooms/{room_id}/threads", auth=CLIENT)
async def threads(call: Call, room_id: str) -> JsonObject:
    include = call.query.get("include", "all")
    if include not in ("all", "participated"):
        raise invalid_param('include must be "all" or "participated".')
    return await call.services.sync.relations.threads(
        call.requester,
        room_id,
        limit=call.query.get_int("limit", DEFAULT_THREADS, min=1, max=MAX_THREADS),
        start=call.query.get("from") or None,
        participated=include == "participated",
    )
