# SPDX-License-Identifier: Apache-2.0
"""Queries (spec: server-server-api, "Querying for information") and the version."""

from __future__ import annotations

import minihs
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import invalid_param, not_found
from minihs.matrix.ids import domain_of, is_room_alias, is_user_id
from minihs.web.routing import FEDERATION, NONE, Call, Routes

routes = Routes()

_V1 = "/_matrix/federation/v1"


@routes.get(_V1 + "/version", auth=NONE)
async def version(call: Call) -> JsonObject:
    return {"server": {"name": "minihs", "version": minihs.__version__}}


@routes.get(_V1 + "/query/directory", auth=FEDERATION)
async def directory(call: Call) -> JsonObject:
    alias = call.query.require("room_alias")
    if not is_room_alias(alias) or domain_of(alias) != call.services.config.server_name:
        raise invalid_param("The alias is not one of this server.")
    room_id, servers = call.services.rooms.directory.resolve_local(alias)
    return {"room_id": room_id, "servers": servers}


@routes.get(_V1 + "/query/profile", auth=FEDERATION)
async def profile(call: Call) -> JsonObject:
    user_id = call.query.require("user_id")
    if not is_user_id(user_id) or domain_of(user_id) != call.services.config.server_name:
        raise invalid_param("The user is not one of this server.")
    return call.services.users.profiles.local(user_id, call.query.get("field"))


@routes.get(_V1 + "/query/{query_type}", auth=FEDERATION)
async def query(call: Call, query_type: str) -> JsonObject:
    raise not_found("There are no queries of this type here.")
