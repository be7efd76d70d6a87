# SPDX-License-Identifier: Apache-2.0
"""Registration by a shared secret under the path that Synapse has it: see users/shared_secret.py."""

from __future__ import annotations

from minihs.web.routing import NONE, Call, JsonObject, Routes

routes = Routes()

REGISTER = "/_synapse/admin/v1/register"


@routes.get(REGISTER, auth=NONE, limit="lookup")
async def nonce(call: Call) -> JsonObject:
    return {"nonce": call.services.users.shared_secret.new_nonce()}


@routes.post(REGISTER, auth=NONE, limit="lookup")
async def register(call: Call) -> JsonObject:
    return await call.services.users.shared_secret.register(await call.json(), call.remote_address)
