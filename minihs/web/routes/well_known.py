# SPDX-License-Identifier: Apache-2.0
"""/.well-known/matrix: where clients and other servers find us ("Server Discovery" of both APIs)."""

from __future__ import annotations

from minihs.matrix.errors import not_found
from minihs.web.routing import NONE, Call, JsonObject, Routes

routes = Routes()


@routes.get("/.well-known/matrix/client", auth=NONE)
async def client(call: Call) -> JsonObject:
    base_url = call.services.config.public_base_url
    if not base_url:
        raise not_found("This server does not announce an address for clients.")
    return {"m.homeserver": {"base_url": base_url.rstrip("/")}}


@routes.get("/.well-known/matrix/server", auth=NONE)
async def server(call: Call) -> JsonObject:
    delegated = call.services.config.delegated_server
    if not delegated:
        raise not_found("This server is reached under its own name.")
    return {"m.server": delegated}
