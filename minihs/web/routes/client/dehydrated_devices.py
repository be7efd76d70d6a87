# SPDX-License-Identifier: Apache-2.0
"""Dehydrated devices (MSC3814), under their name from before they are in the specification."""

from __future__ import annotations

from minihs.matrix.fields import optional_text
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


@routes.get(PATH, auth=CLIENT)
async def dehydrated_device(call: Call) -> JsonObject:
    return call.services.e2ee.dehydrated.get(call.requester.user_id)


@routes.put(PATH, auth=CLIENT)
async def put_dehydrated_device(call: Call) -> JsonObject:
    return await call.services.e2ee.dehydrated.put(call.requester.user_id, await call.json())


@routes.delete(PATH, auth=CLIENT)
async def delete_dehydrated_device(call: Call) -> JsonObject:
    return await call.services.e2ee.dehydrated.delete(call.requester.user_id)


@routes.get(f"{PATH}/{{device_id}}/events", auth=CLIENT)
async def events(call: Call, device_id: str) -> JsonObject:
    since = call.query.get("from")
    found, end, more = call.services.e2ee.dehydrated.events(call.requester.user_id, device_id, since)
    return {"events": found, **({"next_batch": end} if more else {})}


@routes.post(f"{PATH}/{{device_id}}/events", auth=CLIENT)
async def events_as_before(call: Call, device_id: str) -> JsonObject:
    """The older form. Its clients go on until no events come, and need a `next_batch` always."""
    since = optional_text(await call.json(optional=True), "next_batch")
    found, end, _ = call.services.e2ee.dehydrated.events(call.requester.user_id, device_id, since)
    return {"events": found, "next_batch": end}
