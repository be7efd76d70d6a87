# SPDX-License-Identifier: Apache-2.0
"""Keys for end-to-end encryption (client-server-api, "Key management API", "Cross-signing")."""

from __future__ import annotations

from minihs.sync.tokens import parse_sync_token
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()

KEYS = "/_matrix/client/v3/keys"
UNSTABLE = "/_matrix/client/unstable/keys"


@routes.post(f"{KEYS}/upload", also=[f"{KEYS}/upload/{{device_id}}", f"{UNSTABLE}/upload"], auth=CLIENT)
async def upload(call: Call, device_id: str = "") -> JsonObject:
    # Old clients name their device in the path; the token says which it is.
    return await call.services.e2ee.keys.upload(call.requester, await call.json())


@routes.post(f"{KEYS}/query", also=[f"{UNSTABLE}/query"], auth=CLIENT)
async def query(call: Call) -> JsonObject:
    return await call.services.e2ee.keys.query(call.requester, await call.json())


@routes.post(f"{KEYS}/claim", also=[f"{UNSTABLE}/claim"], auth=CLIENT)
async def claim(call: Call) -> JsonObject:
    return await call.services.e2ee.keys.claim(await call.json())


@routes.get(f"{KEYS}/changes", also=[f"{UNSTABLE}/changes"], auth=CLIENT)
async def changes(call: Call) -> JsonObject:
    # `to` only says how far the client has seen: news from after it does no harm.
    since = parse_sync_token(call.query.require("from"))
    return await call.services.e2ee.keys.changes(call.requester, since.pos)


@routes.post(f"{KEYS}/device_signing/upload", also=[f"{UNSTABLE}/device_signing/upload"], auth=CLIENT)
async def upload_cross_signing(call: Call) -> JsonObject:
    body = await call.json()
    cross_signing = call.services.e2ee.cross_signing
    keys = cross_signing.check_upload(call.requester, body)
    if cross_signing.needs_confirmation(call.requester, keys):
        action = "replace the cross-signing keys"
        await call.services.users.logins.confirm_password(call.requester, action, body.get("auth"))
    await cross_signing.upload(call.requester, keys)
    return {}


@routes.post(f"{KEYS}/signatures/upload", also=[f"{UNSTABLE}/signatures/upload"], auth=CLIENT)
async def upload_signatures(call: Call) -> JsonObject:
    return await call.services.e2ee.cross_signing.upload_signatures(call.requester, await call.json())
