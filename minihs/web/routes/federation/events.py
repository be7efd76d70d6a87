# SPDX-License-Identifier: Apache-2.0
"""Events, state and history for other servers (spec: server-server-api, "Retrieving events")."""

from __future__ import annotations

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import bad_json, invalid_param
from minihs.web.routes.federation.streams import streamed
from minihs.web.routing import FEDERATION, Answer, Call, Routes

routes = Routes()

_V1 = "/_matrix/federation/v1"


@routes.get(_V1 + "/event/{event_id}", also=[_V1 + "/event/{event_id}/"], auth=FEDERATION)
async def event(call: Call, event_id: str) -> Answer:
    pdu = call.services.rooms.serving.event(call.origin, event_id)
    return _transaction(call, [canonical.dumps(pdu)])


@routes.get(_V1 + "/state/{room_id}", also=[_V1 + "/state/{room_id}/"], auth=FEDERATION)
async def state(call: Call, room_id: str) -> Answer:
    serving, event_id = call.services.rooms.serving, call.query.require("event_id")
    return streamed(await serving.state(call.origin, room_id, event_id))


@routes.get(_V1 + "/state_ids/{room_id}", also=[_V1 + "/state_ids/{room_id}/"], auth=FEDERATION)
async def state_ids(call: Call, room_id: str) -> Answer:
    serving, event_id = call.services.rooms.serving, call.query.require("event_id")
    return streamed(await serving.state_ids(call.origin, room_id, event_id))


@routes.get(_V1 + "/event_auth/{room_id}/{event_id}", auth=FEDERATION)
async def event_auth(call: Call, room_id: str, event_id: str) -> Answer:
    return streamed(await call.services.rooms.serving.event_auth(call.origin, room_id, event_id))


@routes.get(_V1 + "/backfill/{room_id}", also=[_V1 + "/backfill/{room_id}/"], auth=FEDERATION)
async def backfill(call: Call, room_id: str) -> Answer:
    limit = call.query.get_int("limit", 10, min=0)
    call.query.require("v")
    event_ids = call.query.getlist("v")[:20]
    pdus = await call.services.rooms.serving.backfill(call.origin, room_id, event_ids, limit)
    return _transaction(call, pdus)


@routes.post(_V1 + "/get_missing_events/{room_id}", auth=FEDERATION)
async def get_missing_events(call: Call, room_id: str) -> Answer:
    body = await call.json()
    found = await call.services.rooms.serving.missing_events(
        call.origin,
        room_id,
        earliest=_ids(body, "earliest_events"),
        latest=_ids(body, "latest_events"),
        limit=_integer(body, "limit", 10),
        min_depth=_integer(body, "min_depth", 0),
    )
    return _with_list({}, "events", found)


@routes.get(_V1 + "/timestamp_to_event/{room_id}", auth=FEDERATION)
async def timestamp_to_event(call: Call, room_id: str) -> JsonObject:
    direction = call.query.require("dir")
    if direction not in ("f", "b"):
        raise invalid_param("dir must be f or b.")
    call.query.require("ts")
    ts = call.query.get_int("ts", 0)
    event_id, found = await call.services.rooms.serving.nearest(
        call.origin, room_id, ts, forwards=direction == "f"
    )
    return {"event_id": event_id, "origin_server_ts": found}


def _transaction(call: Call, pdus: list[bytes]) -> Answer:
    services = call.services
    head = {"origin": services.config.server_name, "origin_server_ts": services.runtime.clock.now_ms()}
    return _with_list(head, "pdus", pdus)


def _with_list(fields: JsonObject, name: str, items: list[bytes]) -> Answer:
    """An object whose last field is a list of what is JSON already."""
    head = canonical.dumps({**fields, name: []}).removesuffix(b"]}")
    return Answer(body=head + b",".join(items) + b"]}", headers={"Content-Type": "application/json"})


def _ids(body: JsonObject, name: str) -> list[str]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad_json(f"{name} must be a list of event ids.")
    return value[:50]


def _integer(body: JsonObject, name: str, default: int) -> int:
    value = body.get(name, default)
    if type(value) is not int:
        raise bad_json(f"{name} must be a whole number.")
    return value
