# SPDX-License-Identifier: Apache-2.0
"""Fetching media from the server that has them (server-server-api, "Content Repository").

Only the requests; what comes back is taken apart in `minihs.media`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from minihs.federation import http
from minihs.federation.client import V1, FederationClient
from minihs.federation.transport import Request, path
from minihs.federation.web import MAX_BODY, IncomingBody

LEGACY = "/_matrix/media/v3/download"


class MediaPeers:
    """The other servers, as media see them."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    @asynccontextmanager
    async def download(
        self, host: str, media_id: str, *, timeout_ms: int, within: float
    ) -> AsyncIterator[IncomingBody]:
        query = (("timeout_ms", str(timeout_ms)),)
        request = Request("GET", host, path(f"{V1}/media/download", media_id), query)
        async with self._ask(request, within) as incoming:
            yield incoming

    @asynccontextmanager
    async def download_legacy(
        self, host: str, media_id: str, *, timeout_ms: int, within: float
    ) -> AsyncIterator[IncomingBody]:
        """`allow_remote=false`: the server shall not ask further, or two could ask each other for ever."""
        query = (("allow_remote", "false"), ("timeout_ms", str(timeout_ms)))
        request = Request("GET", host, path(LEGACY, host, media_id), query, signed=False)
        async with self._ask(request, within) as incoming:
            yield incoming

    @asynccontextmanager
    async def _ask(self, request: Request, within: float) -> AsyncIterator[IncomingBody]:
        async with (
            self._client.stream(request, within=within) as response,
            aclosing(http.chunks(response, MAX_BODY)) as body,
        ):
            yield IncomingBody(http.headers_of(response), f"https://{request.destination}{request.uri}", body)
