# SPDX-License-Identifier: Apache-2.0
"""What users do in rooms: create, join, leave, moderate, send (client-server-api, "Rooms", "Sending events to
a room").

Thin: everything about it is decided in `minihs.rooms`.
"""

from __future__ import annotations

from collections.abc import Sequence

from minihs.matrix.errors import bad_json, missing_param
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

V3 = "/_matrix/client/v3"
ROOM = V3 + "/rooms/{room_id}"


@routes.post(V3 + "/createRoom", auth=CLIENT, limit="join")
async def create_room(call: Call) -> JsonObject:
    return {"room_id": await call.services.rooms.create(call.active_requester.user_id, await call.json())}


@routes.post(ROOM + "/join", also=[V3 + "/join/{room_id}"], auth=CLIENT, limit="join")
async def join(call: Call, room_id: str) -> JsonObject:
    """`room_id` may be an alias in the second form; the first takes one as well."""
    content = _reason_only(await call.json(optional=True))
    joined = await call.services.rooms.join(
        call.active_requester.user_id, room_id, via=_via(call), content=content
    )
    return {"room_id": joined}


@routes.post(V3 + "/knock/{room_id}", auth=CLIENT, limit="join")
async def knock(call: Call, room_id: str) -> JsonObject:
    reason = _reason(await call.json(optional=True))
    knocked = await call.services.rooms.knock(
        call.active_requester.user_id, room_id, via=_via(call), reason=reason
    )
    return {"room_id": knocked}


@routes.post(ROOM + "/leave", auth=CLIENT)
async def leave(call: Call, room_id: str) -> JsonObject:
    user_id = call.requester.user_id
    await call.services.rooms.leave(user_id, room_id, _reason(await call.json(optional=True)))
    call.services.sync.typing.stop(user_id, room_id)
    return {}


@routes.post(ROOM + "/forget", auth=CLIENT)
async def forget(call: Call, room_id: str) -> JsonObject:
    await call.services.rooms.forget(call.requester.user_id, room_id)
    return {}


@routes.post(ROOM + "/invite", auth=CLIENT, limit="join")
async def invite(call: Call, room_id: str) -> JsonObject:
    body = await call.json()
    await call.services.rooms.invite(call.active_requester.user_id, room_id, _target(body), _reason(body))
    return {}


@routes.post(ROOM + "/kick", auth=CLIENT, limit="message")
async def kick(call: Call, room_id: str) -> JsonObject:
    body = await call.json()
    await call.services.rooms.kick(call.active_requester.user_id, room_id, _target(body), _reason(body))
    return {}


@routes.post(ROOM + "/ban", auth=CLIENT, limit="message")
async def ban(call: Call, room_id: str) -> JsonObject:
    body = await call.json()
    await call.services.rooms.ban(call.active_requester.user_id, room_id, _target(body), _reason(body))
    return {}


@routes.post(ROOM + "/unban", auth=CLIENT, limit="message")
async def unban(call: Call, room_id: str) -> JsonObject:
    body = await call.json()
    await call.services.rooms.unban(call.active_requester.user_id, room_id, _target(body), _reason(body))
    return {}


@routes.put(ROOM + "/send/{event_type}/{txn_id}", auth=CLIENT, limit="message")
async def send(call: Call, room_id: str, event_type: str, txn_id: str) -> JsonObject:
    requester = call.active_requester
    event_id = await call.services.rooms.send(
        requester.user_id,
        room_id,
        event_type,
        await call.json(),
        device_id=requester.device_id,
        txn_id=txn_id,
    )
    call.services.sync.typing.stop(requester.user_id, room_id)
    return {"event_id": event_id}


@routes.put(ROOM + "/redact/{event_id}/{txn_id}", auth=CLIENT, limit="message")
async def redact(call: Call, room_id: str, event_id: str, txn_id: str) -> JsonObject:
    requester = call.requester
    target = call.services.rooms.parts.graph.event(event_id)
    if target is None or target.sender != requester.user_id:
        requester = call.active_requester  # one's own may be taken back even then
    content = _reason_only(await call.json(optional=True))
    redaction = await call.services.rooms.redact(
        requester.user_id, room_id, event_id, content, requester.device_id, txn_id
    )
    return {"event_id": redaction}


def _via(call: Call) -> Sequence[str]:
    """Servers to try; `server_name` is what `via` was called before version 1.12."""
    return [*call.query.getlist("via"), *call.query.getlist("server_name")]


def _reason(body: JsonObject) -> str | None:
    reason = body.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise bad_json("reason must be a string.")
    return reason


def _reason_only(body: JsonObject) -> JsonObject:
    reason = _reason(body)
    return {} if reason is None else {"reason": reason}


def _target(body: JsonObject) -> str:
    target = body.get("user_id")
    if target is None:
        raise missing_param("user_id is missing. (This server invites nobody by e-mail or telephone.)")
    if not isinstance(target, str):
        raise bad_json("user_id must be a string.")
    return target
