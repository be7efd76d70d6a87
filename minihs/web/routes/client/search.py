# SPDX-License-Identifier: Apache-2.0
"""POST /search (client-server-api, "Server Side Search")."""

from __future__ import annotations

from minihs.sync.search import parse
from minihs.web.routing import CLIENT, Call, JsonObject, Routes

routes = Routes()


@routes.post("/_matrix/client/v3/search", auth=CLIENT, limit="lookup")
async def search(call: Call) -> JsonObject:
    criteria = parse(await call.json(), call.query.get("next_batch"))
    if criteria is None:
        return {"search_categories": {}}
    found = await call.services.sync.search.search(call.requester, criteria)
    return {"search_categories": {"room_events": found}}
