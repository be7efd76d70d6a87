# SPDX-License-Identifier: Apache-2.0
"""Our published rooms, for other servers (spec: server-server-api, "Public Room Directory")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.sync.public_rooms import options_from
from minihs.web.routing import FEDERATION, Call, Routes

routes = Routes()

_PATH = "/_matrix/federation/v1/publicRooms"


@routes.get(_PATH, auth=FEDERATION)
async def public_rooms(call: Call) -> JsonObject:
    network = call.query.get("third_party_instance_id")
    options = options_from(call.query.get_int("limit"), call.query.get("since"), None, network)
    return await call.services.sync.public_rooms.list(options)


@routes.post(_PATH, auth=FEDERATION)
async def search_public_rooms(call: Call) -> JsonObject:
    body = await call.json(optional=True)
    network = body.get("third_party_instance_id")
    options = options_from(body.get("limit"), body.get("since"), body.get("filter"), network)
    return await call.services.sync.public_rooms.list(options)
