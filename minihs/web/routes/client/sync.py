# SPDX-License-Identifier: Apache-2.0
"""GET /sync (client-server-api, "Syncing")."""

from __future__ import annotations

from minihs.matrix.errors import MatrixError, invalid_param
from minihs.sync.context import STATE, STATE_AFTER, UNSTABLE_STATE_AFTER
from minihs.sync.filters import NO_FILTER, SyncFilter, parse_filter, parse_inline
from minihs.sync.syncer import MAX_TIMEOUT_MS, SyncOptions
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.get("/_matrix/client/v3/sync", auth=CLIENT)
async def sync(call: Call) -> JsonObject:
    query = call.query
    state_name = STATE
    if query.get_bool("use_state_after"):
        state_name = STATE_AFTER
    elif query.get_bool("org.matrix.msc4222.use_state_after"):
        state_name = UNSTABLE_STATE_AFTER
    options = SyncOptions(
        filter=filter_of(call, query.get("filter")),
        since=query.get("since", ""),
        timeout_ms=query.get_int("timeout", 0, max=MAX_TIMEOUT_MS),
        full_state=query.get_bool("full_state"),
        state_name=state_name,
    )
    presence = query.get("set_presence", "online")
    if presence != "offline":
        call.services.users.presence.seen(call.requester.user_id, presence)
    return await call.services.sync.syncer.sync(call.requester, options)


def filter_of(call: Call, text: str | None) -> SyncFilter:
    """A filter given inline or by its id."""
    if not text:
        return NO_FILTER
    if text.startswith("{"):
        return parse_filter(parse_inline(text))
    requester = call.requester
    try:
        return parse_filter(call.services.users.data.filter(requester, requester.user_id, text))
    except MatrixError as error:
        raise invalid_param("There is no such filter.") from error
