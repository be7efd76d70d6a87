# SPDX-License-Identifier: Apache-2.0
"""Our users' devices and keys, and who an OpenID token stands for.

Spec: server-server-api, "End-to-End Encryption" and "OpenID".
"""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, invalid_param
from minihs.matrix.ids import domain_of, is_user_id
from minihs.web.routing import FEDERATION, NONE, Call, Routes

routes = Routes()

_V1 = "/_matrix/federation/v1"


@routes.post(_V1 + "/user/keys/query", auth=FEDERATION)
async def query_keys(call: Call) -> JsonObject:
    return call.services.e2ee.keys.query_local(await call.json())


@routes.post(_V1 + "/user/keys/claim", auth=FEDERATION)
async def claim_keys(call: Call) -> JsonObject:
    return await call.services.e2ee.keys.claim_local(await call.json())


@routes.post("/_matrix/federation/unstable/user/keys/claim", auth=FEDERATION)
async def claim_many_keys(call: Call) -> JsonObject:
    """Asked by Synapse where a client wants more than one key of a device (MSC3983)."""
    return await call.services.e2ee.keys.claim_many_local(await call.json())


@routes.get(_V1 + "/user/devices/{user_id}", auth=FEDERATION)
async def devices(call: Call, user_id: str) -> JsonObject:
    if not is_user_id(user_id) or domain_of(user_id) != call.services.config.server_name:
        raise invalid_param("The user is not one of this server.")
    return call.services.e2ee.keys.devices_of(user_id)


@routes.get(_V1 + "/openid/userinfo", auth=NONE, limit="lookup")
async def openid_userinfo(call: Call) -> JsonObject:
    user_id = call.services.users.openid_user(call.query.require("access_token"))
    if user_id is None:
        raise MatrixError(401, "M_UNKNOWN_TOKEN", "The token is unknown or has expired.")
    return {"sub": user_id}
