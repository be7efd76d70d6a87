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


@routes.get("/.well-known/matrix/support", auth=NONE)
async def support(call: Call) -> JsonObject:
    configured = call.services.config.support
    ways = {"matrix_id": configured.matrix_id, "email_address": configured.email_address}
    contact = {name: value for name, value in ways.items() if value}
    answer: JsonObject = {"contacts": [{**contact, "role": "m.role.admin"}]} if contact else {}
    if configured.page:
        answer["support_page"] = configured.page
    if not answer:
        raise not_found("This server does not say whom to ask.")
    return answer
