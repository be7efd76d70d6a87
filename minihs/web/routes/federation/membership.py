# SPDX-License-Identifier: Apache-2.0
"""Joins, leaves, knocks and invites by other servers (spec: server-server-api, "Joining Rooms" and after)."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json
from minihs.matrix.fields import required_text
from minihs.web.routes.federation.streams import streamed
from minihs.web.routing import FEDERATION, KIB, MAX_CARRIED_DEPTH, Answer, Call, Routes

routes = Routes()

_EVENT_CAP = 256 * KIB
_INVITE_CAP = 1024 * KIB
_V1, _V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"


@routes.get(_V1 + "/make_join/{room_id}/{user_id}", auth=FEDERATION)
async def make_join(call: Call, room_id: str, user_id: str) -> JsonObject:
    versions = call.query.getlist("ver") or ["1"]
    return await call.services.rooms.resident.make(call.origin, room_id, user_id, "join", versions)


@routes.put(_V2 + "/send_join/{room_id}/{event_id}", auth=FEDERATION, body_cap=_EVENT_CAP)
async def send_join(call: Call, room_id: str, event_id: str) -> Answer:
    omit = call.query.get_bool("omit_members")
    body = await call.json()
    return streamed(
        await call.services.rooms.resident.send_join(call.origin, room_id, event_id, body, omit_members=omit)
    )


@routes.put(_V1 + "/send_join/{room_id}/{event_id}", auth=FEDERATION, body_cap=_EVENT_CAP)
async def send_join_v1(call: Call, room_id: str, event_id: str) -> Answer:
    answer = await call.services.rooms.resident.send_join(call.origin, room_id, event_id, await call.json())
    return streamed(answer, before=b"[200,", after=b"]")


@routes.get(_V1 + "/make_leave/{room_id}/{user_id}", auth=FEDERATION)
async def make_leave(call: Call, room_id: str, user_id: str) -> JsonObject:
    return await call.services.rooms.resident.make(call.origin, room_id, user_id, "leave", None)


@routes.put(_V2 + "/send_leave/{room_id}/{event_id}", auth=FEDERATION, body_cap=_EVENT_CAP)
async def send_leave(call: Call, room_id: str, event_id: str) -> JsonObject:
    await call.services.rooms.resident.send_leave(call.origin, room_id, event_id, await call.json())
    return {}


@routes.put(_V1 + "/send_leave/{room_id}/{event_id}", auth=FEDERATION, body_cap=_EVENT_CAP)
async def send_leave_v1(call: Call, room_id: str, event_id: str) -> Answer:
    await call.services.rooms.resident.send_leave(call.origin, room_id, event_id, await call.json())
    return Answer(json=[200, {}])


@routes.get(_V1 + "/make_knock/{room_id}/{user_id}", auth=FEDERATION)
async def make_knock(call: Call, room_id: str, user_id: str) -> JsonObject:
    versions = call.query.getlist("ver")
    return await call.services.rooms.resident.make(call.origin, room_id, user_id, "knock", versions)


@routes.put(_V1 + "/send_knock/{room_id}/{event_id}", auth=FEDERATION, body_cap=_EVENT_CAP)
async def send_knock(call: Call, room_id: str, event_id: str) -> JsonObject:
    return await call.services.rooms.resident.send_knock(call.origin, room_id, event_id, await call.json())


@routes.put(
    _V2 + "/invite/{room_id}/{event_id}",
    auth=FEDERATION,
    body_cap=_INVITE_CAP,
    max_depth=MAX_CARRIED_DEPTH,
)
async def invite(call: Call, room_id: str, event_id: str) -> JsonObject:
    body = await call.json()
    event = await call.services.rooms.invites.receive(
        call.origin,
        room_id,
        event_id,
        required_text(body, "room_version"),
        body.get("event"),
        body.get("invite_room_state", []),
    )
    return {"event": event}


@routes.put(
    _V1 + "/invite/{room_id}/{event_id}",
    auth=FEDERATION,
    body_cap=_INVITE_CAP,
    max_depth=MAX_CARRIED_DEPTH,
)
async def invite_v1(call: Call, room_id: str, event_id: str) -> Answer:
    """The old form: the body is the event, of room version 1 or 2."""
    body = await call.json()
    unsigned = body.get("unsigned", {})
    if not isinstance(unsigned, dict):
        raise bad_json("unsigned must be an object.")
    invites = call.services.rooms.invites
    version, shown = invites.version_of_old_form(room_id), unsigned.get("invite_room_state", [])
    event = await invites.receive(call.origin, room_id, event_id, version, body, shown)
    return Answer(json=[200, {"event": event}])
