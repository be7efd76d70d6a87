# SPDX-License-Identifier: Apache-2.0
"""Receipts and read markers (client-server-api, "Receipts", "Fully read markers")."""

from __future__ import annotations

from minihs.sync.receipts import RECEIPT_TYPES, check_event_id, check_receipt_type, check_thread_id
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

ROOM = "/_matrix/client/v3/rooms/{room_id}"


@routes.post(ROOM + "/receipt/{receipt_type}/{event_id}", auth=CLIENT)
async def receipt(call: Call, room_id: str, receipt_type: str, event_id: str) -> JsonObject:
    kind = check_receipt_type(receipt_type)
    body = await call.json(optional=True)
    thread = check_thread_id(body.get("thread_id"), kind)
    markers = {kind: check_event_id(event_id, "eventId")}
    await call.services.sync.receipts.set_markers(call.requester.user_id, room_id, markers, thread)
    return {}


@routes.post(ROOM + "/read_markers", auth=CLIENT)
async def read_markers(call: Call, room_id: str) -> JsonObject:
    body = await call.json()
    markers = {kind: check_event_id(body[kind], kind) for kind in RECEIPT_TYPES if kind in body}
    await call.services.sync.receipts.set_markers(call.requester.user_id, room_id, markers)
    return {}
