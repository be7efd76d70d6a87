# SPDX-License-Identifier: Apache-2.0
"""What administrators can do through the client API (client-server-api, "Server Administration")."""

from __future__ import annotations

from minihs.matrix.errors import forbidden, missing_param
from minihs.matrix.fields import flag
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"


@routes.get(f"{V3}/admin/whois/{{user_id}}", auth=CLIENT)
async def whois(call: Call, user_id: str) -> JsonObject:
    if call.requester.user_id != user_id and not call.requester.is_admin:
        raise forbidden("Only an administrator may do this.")
    return call.services.users.whois(user_id)


@routes.get(f"{V1}/admin/lock/{{user_id}}", auth=CLIENT)
async def is_locked(call: Call, user_id: str) -> JsonObject:
    return {"locked": call.services.users.moderated(call.requester, user_id).locked}


@routes.put(f"{V1}/admin/lock/{{user_id}}", auth=CLIENT)
async def lock(call: Call, user_id: str) -> JsonObject:
    locked = required_flag(await call.json(), "locked")
    await call.services.users.set_locked(call.requester, user_id, locked)
    return {"locked": locked}


@routes.get(f"{V1}/admin/suspend/{{user_id}}", auth=CLIENT)
async def is_suspended(call: Call, user_id: str) -> JsonObject:
    return {"suspended": call.services.users.moderated(call.requester, user_id).suspended}


@routes.put(f"{V1}/admin/suspend/{{user_id}}", auth=CLIENT)
async def suspend(call: Call, user_id: str) -> JsonObject:
    suspended = required_flag(await call.json(), "suspended")
    await call.services.users.set_suspended(call.requester, user_id, suspended)
    return {"suspended": suspended}


def required_flag(body: JsonObject, name: str) -> bool:
    if name not in body:
        raise missing_param(f"{name} is missing.")
    return flag(body, name)
