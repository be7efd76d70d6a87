# SPDX-License-Identifier: Apache-2.0
"""One's own account: who am I, password, end; no third-party identifiers (client-server-api, "Account
management").

An account of this server has no email address or phone number, so there are none to list, add or take away.
"""

from __future__ import annotations

from minihs.matrix.errors import MatrixError
from minihs.web.routing import CLIENT, NONE, Call, JsonObject, Routes

routes = Routes()

V3 = "/_matrix/client/v3"


@routes.get(f"{V3}/account/whoami", auth=CLIENT)
async def whoami(call: Call) -> JsonObject:
    requester = call.requester
    return {"user_id": requester.user_id, "device_id": requester.device_id, "is_guest": requester.is_guest}


@routes.post(f"{V3}/account/password", auth=CLIENT, limit="login")
async def change_password(call: Call) -> JsonObject:
    await call.services.users.accounts.change_password(call.requester, await call.json())
    return {}


@routes.post(f"{V3}/account/deactivate", auth=CLIENT, limit="login")
async def deactivate(call: Call) -> JsonObject:
    await call.services.users.accounts.deactivate(call.requester, await call.json())
    return {"id_server_unbind_result": "success"}


@routes.get(f"{V3}/account/3pid", auth=CLIENT)
async def third_party_ids(_: Call) -> JsonObject:
    return {"threepids": []}


async def refuse_third_party_id(_: Call) -> JsonObject:
    raise MatrixError(403, "M_THREEPID_DENIED", "This server keeps no email addresses or phone numbers.")


for path in ("3pid", "3pid/add", "3pid/bind", "3pid/delete", "3pid/unbind"):
    routes.post(f"{V3}/account/{path}", auth=CLIENT)(refuse_third_party_id)
for path in ("register", "account/3pid", "account/password"):
    for medium in ("email", "msisdn"):
        routes.post(f"{V3}/{path}/{medium}/requestToken", auth=NONE)(refuse_third_party_id)
