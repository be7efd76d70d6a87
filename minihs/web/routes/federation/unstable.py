# SPDX-License-Identifier: Apache-2.0
"""Endpoints that are in use between servers without being in the specification."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.web.routing import FEDERATION, Call, Routes

routes = Routes()

_UNSTABLE = "/_matrix/federation/unstable"


@routes.get(_UNSTABLE + "/rooms/{room_id}/complexity", auth=FEDERATION)
async def complexity(call: Call, room_id: str) -> JsonObject:
    """How large a room is, asked by small servers before they join it (Synapse's `v1`)."""
    return {"v1": call.services.rooms.serving.complexity(call.origin, room_id)}


@routes.get(_UNSTABLE + "/org.matrix.msc4370/extremities/{room_id}", auth=FEDERATION)
async def extremities(call: Call, room_id: str) -> JsonObject:
    return {"prev_events": call.services.rooms.serving.extremities(call.origin, room_id)}
