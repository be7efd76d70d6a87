# SPDX-License-Identifier: Apache-2.0
"""Messages to devices (client-server-api, "Send-to-Device messaging")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.put("/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}", auth=CLIENT)
async def send_to_device(call: Call, event_type: str, txn_id: str) -> JsonObject:
    await call.services.e2ee.to_device.send(call.requester, event_type, txn_id, await call.json())
    return {}
