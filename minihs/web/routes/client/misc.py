# SPDX-License-Identifier: Apache-2.0
"""Small things that clients ask for: presence, OpenID, TURN, and what this server has none of."""

from __future__ import annotations

from minihs.matrix.errors import not_found
from minihs.users import turn
from minihs.web.routing import CLIENT, Answer, Call, JsonObject, Routes

routes = Routes()

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"


@routes.get(f"{V3}/presence/{{user_id}}/status", auth=CLIENT)
async def presence(call: Call, user_id: str) -> JsonObject:
    return call.services.users.presence.get(call.requester, user_id)


@routes.put(f"{V3}/presence/{{user_id}}/status", auth=CLIENT)
async def set_presence(call: Call, user_id: str) -> JsonObject:
    call.services.users.presence.set(call.requester, user_id, await call.json())
    return {}


@routes.post(f"{V3}/user/{{user_id}}/openid/request_token", auth=CLIENT, limit="lookup")
async def openid_token(call: Call, user_id: str) -> JsonObject:
    return await call.services.users.new_openid_token(call.requester, user_id)


@routes.get(f"{V3}/voip/turnServer", auth=CLIENT, limit="lookup")
async def turn_server(call: Call) -> JsonObject:
    now = call.services.runtime.clock.now_ms()
    return turn.credentials(call.services.config.turn, call.requester.user_id, now=now)


@routes.get(f"{V3}/thirdparty/protocols", auth=CLIENT)
async def third_party_protocols(_: Call) -> JsonObject:
    return {}


@routes.get(f"{V3}/thirdparty/protocol/{{protocol}}", auth=CLIENT)
async def third_party_protocol(_: Call, protocol: str) -> JsonObject:
    raise not_found("There is no such protocol here.")


async def no_third_parties(_: Call, protocol: str = "") -> Answer:
    return Answer(200, json=[])


for what in ("location", "user"):
    routes.get(f"{V3}/thirdparty/{what}", also=[f"{V3}/thirdparty/{what}/{{protocol}}"], auth=CLIENT)(
        no_third_parties
    )
