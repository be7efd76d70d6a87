# SPDX-License-Identifier: Apache-2.0
"""Making accounts (client-server-api, "Account registration")."""

from __future__ import annotations

from minihs.matrix.errors import forbidden, invalid_param
from minihs.web.routing import NONE, Call, JsonObject, Routes

routes = Routes()

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"


@routes.post(f"{V3}/register", auth=NONE, limit="registration")
async def register(call: Call) -> JsonObject:
    kind = call.query.get("kind", "user")
    if kind == "guest":
        raise forbidden("This server has no guests.")
    if kind != "user":
        raise invalid_param("kind must be user or guest.")
    return await call.services.users.accounts.register(await call.json(), call.remote_address)


@routes.get(f"{V3}/register/available", auth=NONE, limit="lookup")
async def available(call: Call) -> JsonObject:
    call.services.users.accounts.check_available(call.query.require("username"))
    return {"available": True}


@routes.get(f"{V1}/register/m.login.registration_token/validity", auth=NONE, limit="login")
async def token_validity(call: Call) -> JsonObject:
    return {"valid": call.services.users.accounts.is_valid_registration_token(call.query.require("token"))}
