# SPDX-License-Identifier: Apache-2.0
"""Third-party invites that are redeemed (spec: server-server-api, "Third-party invites")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.web.routing import FEDERATION, NONE, Call, Routes

routes = Routes()

_V1 = "/_matrix/federation/v1"


@routes.put(_V1 + "/exchange_third_party_invite/{room_id}", auth=FEDERATION)
async def exchange(call: Call, room_id: str) -> JsonObject:
    await call.services.rooms.third_party.exchange(call.origin, room_id, await call.json())
    return {}


# The specification says PUT; identity servers of today POST.
@routes.put(_V1 + "/3pid/onbind", auth=NONE, limit="lookup")
@routes.post(_V1 + "/3pid/onbind", auth=NONE, limit="lookup")
async def onbind(call: Call) -> JsonObject:
    await call.services.rooms.third_party.bound(await call.json())
    return {}
