# SPDX-License-Identifier: Apache-2.0
"""Backups of room keys (client-server-api, "Server-side key backups")."""

from __future__ import annotations

from minihs.web.routing import CLIENT, MIB, Call, JsonObject, Routes

routes = Routes()

VERSION = "/_matrix/client/v3/room_keys/version"
KEYS = "/_matrix/client/v3/room_keys/keys"
ROOM = KEYS + "/{room_id}"
SESSION = ROOM + "/{session_id}"

KEYS_BODY_CAP = 16 * MIB
"""Clients back up some hundred keys at a time; a thousand with long signatures are a few MiB."""


@routes.post(VERSION, auth=CLIENT)
async def create_version(call: Call) -> JsonObject:
    version = await call.services.e2ee.backups.create(call.requester.user_id, await call.json())
    return {"version": version}


@routes.get(VERSION, also=[f"{VERSION}/"], auth=CLIENT)
async def current_version(call: Call) -> JsonObject:
    return call.services.e2ee.backups.version(call.requester.user_id)


@routes.get(VERSION + "/{version}", auth=CLIENT)
async def one_version(call: Call, version: str) -> JsonObject:
    return call.services.e2ee.backups.version(call.requester.user_id, version)


@routes.put(VERSION + "/{version}", auth=CLIENT)
async def update_version(call: Call, version: str) -> JsonObject:
    await call.services.e2ee.backups.update(call.requester.user_id, version, await call.json())
    return {}


@routes.delete(VERSION + "/{version}", auth=CLIENT)
async def delete_version(call: Call, version: str) -> JsonObject:
    await call.services.e2ee.backups.delete(call.requester.user_id, version)
    return {}


@routes.put(KEYS, also=[ROOM, SESSION], auth=CLIENT, body_cap=KEYS_BODY_CAP)
async def put_keys(call: Call, room_id: str | None = None, session_id: str | None = None) -> JsonObject:
    return await call.services.e2ee.backups.put(
        call.requester.user_id, call.query.get("version"), await call.json(), room_id, session_id
    )


@routes.get(KEYS, also=[ROOM, SESSION], auth=CLIENT)
async def get_keys(call: Call, room_id: str | None = None, session_id: str | None = None) -> JsonObject:
    return await call.services.e2ee.backups.get(
        call.requester.user_id, call.query.get("version"), room_id, session_id
    )


@routes.delete(KEYS, also=[ROOM, SESSION], auth=CLIENT)
async def delete_keys(call: Call, room_id: str | None = None, session_id: str | None = None) -> JsonObject:
    return await call.services.e2ee.backups.delete_keys(
        call.requester.user_id, call.query.get("version"), room_id, session_id
    )
