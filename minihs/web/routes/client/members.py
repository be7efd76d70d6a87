# SPDX-License-Identifier: Apache-2.0
"""Who is in a room: /members, /joined_members (client-server-api, "Getting events for a room")."""

from __future__ import annotations

from minihs.matrix.errors import invalid_param
from minihs.sync.room_reads import MemberOptions
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

ROOM = "/_matrix/client/v3/rooms/{room_id}"

MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


@routes.get(ROOM + "/members", auth=CLIENT)
async def members(call: Call, room_id: str) -> JsonObject:
    options = MemberOptions(
        at=call.query.get("at") or None,
        membership=_membership(call, "membership"),
        not_membership=_membership(call, "not_membership"),
    )
    return {"chunk": await call.services.sync.reads.members(call.requester, room_id, options)}


@routes.get(ROOM + "/joined_members", auth=CLIENT)
async def joined_members(call: Call, room_id: str) -> JsonObject:
    return {"joined": await call.services.sync.reads.joined_members(call.requester, room_id)}


def _membership(call: Call, name: str) -> str | None:
    value = call.query.get(name)
    if value is not None and value not in MEMBERSHIPS:
        raise invalid_param(f"{name} must be one of {', '.join(MEMBERSHIPS)}.")
    return value
