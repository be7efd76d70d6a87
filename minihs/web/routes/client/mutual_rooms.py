# SPDX-License-Identifier: Apache-2.0
"""Rooms that two users share (client-server-api, "Mutual Rooms")."""

from __future__ import annotations

import re

from minihs.matrix.errors import invalid_param
from minihs.matrix.ids import is_user_id
from minihs.store import sync_rooms
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

MAX_ROOMS = 100
"""On one page."""

_TOKEN = re.compile(r"[0-9]{1,18}", re.ASCII)


@routes.get(
    "/_matrix/client/v1/mutual_rooms",
    also=["/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"],
    auth=CLIENT,
    limit="lookup",
)
async def mutual_rooms(call: Call) -> JsonObject:
    other = call.query.require("user_id")
    if not is_user_id(other) or other == call.requester.user_id:
        raise invalid_param("user_id must be the id of somebody else.")
    start = call.query.get("from") or call.query.get("batch_token", "0")
    if not _TOKEN.fullmatch(start):
        raise invalid_param("The token is malformed.")
    db = call.services.db.read
    shared = sync_rooms.shared_rooms(db, call.requester.user_id, other)
    page = [room for room in shared if room.room_nid > int(start)]
    answer: JsonObject = {"joined": [room.room_id for room in page[:MAX_ROOMS]], "count": len(shared)}
    if len(page) > MAX_ROOMS:
        # The second is its name from before the specification had it.
        answer["next_batch"] = answer["next_batch_token"] = str(page[MAX_ROOMS - 1].room_nid)
    return answer
