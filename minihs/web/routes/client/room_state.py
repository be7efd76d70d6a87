# SPDX-License-Identifier: Apache-2.0
"""Reading and setting a room's state (client-server-api, "Getting events for a room", "Sending events to a
room").

An empty state key may come with a slash before it or without.
"""

from __future__ import annotations

from minihs.matrix.errors import invalid_param
from minihs.web.routing import CLIENT, Answer, Call, JsonObject, Routes

routes = Routes()

STATE = "/_matrix/client/v3/rooms/{room_id}/state"
ONE = STATE + "/{event_type}/{state_key}"
WITHOUT_KEY = [STATE + "/{event_type}/", STATE + "/{event_type}"]


@routes.get(STATE, auth=CLIENT)
async def state(call: Call, room_id: str) -> Answer:
    return Answer(json=await call.services.sync.reads.state(call.requester, room_id))


@routes.get(ONE, also=WITHOUT_KEY, auth=CLIENT)
async def state_event(call: Call, room_id: str, event_type: str, state_key: str = "") -> JsonObject:
    form = call.query.get("format", "content")
    if form not in ("content", "event"):
        raise invalid_param('format must be "content" or "event".')
    event = await call.services.sync.reads.state_event(call.requester, room_id, event_type, state_key)
    content: JsonObject = event["content"]
    return event if form == "event" else content


@routes.put(ONE, also=WITHOUT_KEY, auth=CLIENT, limit="message")
async def set_state(call: Call, room_id: str, event_type: str, state_key: str = "") -> JsonObject:
    event_id = await call.services.rooms.send(
        call.active_requester.user_id, room_id, event_type, await call.json(), state_key=state_key
    )
    return {"event_id": event_id}
