# SPDX-License-Identifier: Apache-2.0
"""Our users' files, for other servers (server-server-api, "Content Repository")."""

from __future__ import annotations

from minihs.web.downloads import send_to_server
from minihs.web.routes.client.media import size_of, wait_ms
from minihs.web.routing import FEDERATION, Answer, Call, Routes

routes = Routes()

V1 = "/_matrix/federation/v1/media"


@routes.get(V1 + "/download/{media_id}", auth=FEDERATION, limit="media")
async def download(call: Call, media_id: str) -> Answer:
    found = await call.services.media.download_ours(media_id, timeout_ms=wait_ms(call))
    return send_to_server(found, new_boundary(call))


@routes.get(V1 + "/thumbnail/{media_id}", auth=FEDERATION, limit="media")
async def thumbnail(call: Call, media_id: str) -> Answer:
    found = await call.services.media.thumbnail(
        call.services.config.server_name, media_id, size_of(call), timeout_ms=wait_ms(call)
    )
    return send_to_server(found, new_boundary(call))


def new_boundary(call: Call) -> str:
    """Unguessable: whoever made the file could have put it in there."""
    return call.services.runtime.random.token_urlsafe(24)
