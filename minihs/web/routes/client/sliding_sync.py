# SPDX-License-Identifier: Apache-2.0
"""Sliding sync (MSC4186), on the path that clients use and on that of the MSC."""

from __future__ import annotations

from typing import Any

from minihs.matrix.errors import bad_json, invalid_param
from minihs.sync.sliding.request import parse
from minihs.sync.syncer import MAX_TIMEOUT_MS
from minihs.users.presence import STATES
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.post("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", auth=CLIENT)
async def unstable(call: Call) -> JsonObject:
    request = parse(
        await call.json(),
        call.requester.user_id,
        pos=call.query.get("pos", ""),
        timeout_ms=call.query.get_int("timeout", 0, max=MAX_TIMEOUT_MS),
    )
    _note_presence(call, call.query.get("set_presence", "online"))
    return await call.services.sync.sliding.sync(call.requester, request)


@routes.post("/_matrix/client/v4/sync", auth=CLIENT)
async def stable(call: Call) -> JsonObject:
    # What the unstable path has in the query is in the body here, which spares browsers a preflight.
    body = await call.json()
    request = parse(
        body,
        call.requester.user_id,
        pos=_string(body, "pos", ""),
        timeout_ms=_timeout(body.get("timeout", 0)),
        is_stable=True,
    )
    _note_presence(call, _string(body, "set_presence", "online"))
    return await call.services.sync.sliding.sync(call.requester, request)


def _note_presence(call: Call, state: str) -> None:
    if state not in STATES:
        raise invalid_param("set_presence must be online, offline or unavailable.")
    if state != "offline":
        call.services.users.presence.seen(call.requester.user_id, state)


def _string(body: JsonObject, name: str, default: str) -> str:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise bad_json(f"{name} must be a string.")
    return value


def _timeout(value: Any) -> int:
    if type(value) is not int:
        raise bad_json("timeout must be an integer.")
    if value < 0:
        raise invalid_param("timeout must not be negative.")
    return min(value, MAX_TIMEOUT_MS)
