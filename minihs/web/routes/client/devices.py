# SPDX-License-Identifier: Apache-2.0
"""One's devices (client-server-api, "Device Management")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

V3 = "/_matrix/client/v3"


@routes.get(f"{V3}/devices", auth=CLIENT)
async def devices(call: Call) -> JsonObject:
    return {"devices": call.services.users.devices.all(call.requester.user_id)}


@routes.get(f"{V3}/devices/{{device_id}}", auth=CLIENT)
async def device(call: Call, device_id: str) -> JsonObject:
    return call.services.users.devices.get(call.requester.user_id, device_id)


@routes.put(f"{V3}/devices/{{device_id}}", auth=CLIENT)
async def update_device(call: Call, device_id: str) -> JsonObject:
    await call.services.users.devices.update(call.requester.user_id, device_id, await call.json())
    return {}


@routes.delete(f"{V3}/devices/{{device_id}}", auth=CLIENT)
async def delete_device(call: Call, device_id: str) -> JsonObject:
    body = await call.json(optional=True)
    await call.services.users.devices.delete(call.requester, [device_id], body.get("auth"))
    return {}


@routes.post(f"{V3}/delete_devices", auth=CLIENT)
async def delete_devices(call: Call) -> JsonObject:
    await call.services.users.devices.delete_listed(call.requester, await call.json())
    return {}
