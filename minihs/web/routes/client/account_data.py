# SPDX-License-Identifier: Apache-2.0
"""Account data and room tags (client-server-api, "Client Config", "Room Tagging")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

USER = "/_matrix/client/v3/user/{user_id}"
ROOM = USER + "/rooms/{room_id}"


@routes.get(USER + "/account_data/{type}", auth=CLIENT)
async def account_data(call: Call, user_id: str, type: str) -> JsonObject:
    return call.services.users.data.get(call.requester, user_id, type)


@routes.put(USER + "/account_data/{type}", auth=CLIENT)
async def set_account_data(call: Call, user_id: str, type: str) -> JsonObject:
    await call.services.users.data.put(call.requester, user_id, type, await call.json())
    return {}


@routes.get(ROOM + "/account_data/{type}", auth=CLIENT)
async def room_account_data(call: Call, user_id: str, room_id: str, type: str) -> JsonObject:
    return call.services.users.data.get(call.requester, user_id, type, room_id)


@routes.put(ROOM + "/account_data/{type}", auth=CLIENT)
async def set_room_account_data(call: Call, user_id: str, room_id: str, type: str) -> JsonObject:
    await call.services.users.data.put(call.requester, user_id, type, await call.json(), room_id)
    return {}


@routes.get(ROOM + "/tags", auth=CLIENT)
async def tags(call: Call, user_id: str, room_id: str) -> JsonObject:
    return call.services.users.data.tags(call.requester, user_id, room_id)


@routes.put(ROOM + "/tags/{tag}", auth=CLIENT)
async def set_tag(call: Call, user_id: str, room_id: str, tag: str) -> JsonObject:
    content = await call.json(optional=True)
    await call.services.users.data.put_tag(call.requester, user_id, room_id, tag, content)
    return {}


@routes.delete(ROOM + "/tags/{tag}", auth=CLIENT)
async def delete_tag(call: Call, user_id: str, room_id: str, tag: str) -> JsonObject:
    await call.services.users.data.delete_tag(call.requester, user_id, room_id, tag)
    return {}
