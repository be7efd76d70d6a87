# SPDX-License-Identifier: Apache-2.0
"""Profiles and the user directory (client-server-api, "User Data")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, OPTIONAL_CLIENT, Call, JsonObject, Routes

routes = Routes()

V3 = "/_matrix/client/v3"
FIELD = "/profile/{user_id}/{field}"
UNSTABLE_FIELD = f"/_matrix/client/unstable/uk.tcpip.msc4133{FIELD}"


@routes.get(f"{V3}/profile/{{user_id}}", auth=OPTIONAL_CLIENT, limit="lookup")
async def profile(call: Call, user_id: str) -> JsonObject:
    return await call.services.users.profiles.get(user_id, asker=call.maybe_requester)


@routes.get(V3 + FIELD, also=[UNSTABLE_FIELD], auth=OPTIONAL_CLIENT, limit="lookup")
async def profile_field(call: Call, user_id: str, field: str) -> JsonObject:
    return await call.services.users.profiles.get(user_id, field, asker=call.maybe_requester)


@routes.put(V3 + FIELD, also=[UNSTABLE_FIELD], auth=CLIENT)
async def set_profile_field(call: Call, user_id: str, field: str) -> JsonObject:
    await call.services.users.profiles.set_field(call.requester, user_id, field, await call.json())
    return {}


@routes.delete(V3 + FIELD, also=[UNSTABLE_FIELD], auth=CLIENT)
async def delete_profile_field(call: Call, user_id: str, field: str) -> JsonObject:
    await call.services.users.profiles.delete_field(call.requester, user_id, field)
    return {}


@routes.post(f"{V3}/user_directory/search", auth=CLIENT, limit="lookup")
async def search_users(call: Call) -> JsonObject:
    return await call.services.users.directory.search(call.requester, await call.json())
