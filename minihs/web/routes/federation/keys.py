# SPDX-License-Identifier: Apache-2.0
"""Server keys: ours, and as a notary those of others (spec: server-server-api, "Retrieving server keys")."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json
from minihs.matrix.ids import parse_server_name
from minihs.web.routing import NONE, Call, Routes

routes = Routes()

_V2 = "/_matrix/key/v2"
MAX_SERVERS = 50
"""Servers asked about in one notary query."""


@routes.get(
    _V2 + "/server",
    also=[_V2 + "/server/", _V2 + "/server/{key_id}", _V2 + "/server/{key_id}/"],
    auth=NONE,
)
async def own_keys(call: Call, key_id: str = "") -> JsonObject:
    return call.services.keyring.own_document()


@routes.get(
    _V2 + "/query/{server_name}",
    also=[
        _V2 + "/query/{server_name}/",
        _V2 + "/query/{server_name}/{key_id}",
        _V2 + "/query/{server_name}/{key_id}/",
    ],
    auth=NONE,
    limit="notary",
)
async def query_one(call: Call, server_name: str, key_id: str = "") -> JsonObject:
    if parse_server_name(server_name) is None:
        raise bad_json("That is no server name.")
    wanted = {key_id: call.query.get_int("minimum_valid_until_ts", 0)} if key_id else {}
    if not wanted:
        wanted = {"": call.query.get_int("minimum_valid_until_ts", 0)}
    return {"server_keys": await call.services.keyring.query_keys({server_name: wanted})}


@routes.post(_V2 + "/query", auth=NONE, limit="notary")
async def query(call: Call) -> JsonObject:
    body = await call.json()
    asked = body.get("server_keys")
    if not isinstance(asked, dict) or len(asked) > MAX_SERVERS:
        raise bad_json(f"server_keys must be an object that names at most {MAX_SERVERS} servers.")
    wanted: dict[str, dict[str, int]] = {}
    for server_name, keys in asked.items():
        if parse_server_name(server_name) is None or not isinstance(keys, dict):
            raise bad_json("server_keys must map server names to key ids.")
        wanted[server_name] = {}
        for key_id, criteria in keys.items():
            least = criteria.get("minimum_valid_until_ts", 0) if isinstance(criteria, dict) else None
            if type(least) is not int:
                raise bad_json("minimum_valid_until_ts must be a whole number.")
            wanted[server_name][key_id] = least
    return {"server_keys": await call.services.keyring.query_keys(wanted)}
