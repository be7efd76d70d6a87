# SPDX-License-Identifier: Apache-2.0
"""Spaces for other servers (spec: server-server-api, "Spaces")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.web.routing import FEDERATION, Call, Routes

routes = Routes()


@routes.get("/_matrix/federation/v1/hierarchy/{room_id}", auth=FEDERATION)
async def hierarchy(call: Call, room_id: str) -> JsonObject:
    return call.services.spaces.for_server(
        call.origin, room_id, suggested_only=call.query.get_bool("suggested_only")
    )
