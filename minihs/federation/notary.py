# SPDX-License-Identifier: Apache-2.0
"""Serving other servers' keys, with our signature (spec: "Querying Keys Through Another Server").

A document is signed only after it was found to be what it says: fetched by us, and signed by the server it is
of.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

from minihs.federation.key_fetch import KeyFetcher
from minihs.federation.own_keys import OwnKeys
from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.runtime import Runtime
from minihs.store import server_keys
from minihs.store.database import Database

TIMEOUT = 15.0
"""Seconds that a query may take; then it is answered with what there is."""

MAX_SERVERS = 100


class Notary:
    def __init__(self, own: OwnKeys, db: Database, runtime: Runtime, fetcher: KeyFetcher) -> None:
        self._own = own
        self._db = db
        self._runtime = runtime
        self._fetcher = fetcher

    async def query(self, wanted: Mapping[str, Mapping[str, int]]) -> list[JsonObject]:
        """The documents that hold what is wanted, as far as they are to be had: server to key ids to the time
        until which they should be valid (0: now). No key ids, or an empty one: all keys of the server."""
        now = self._runtime.clock.now_ms()
        servers = list(wanted)[:MAX_SERVERS]
        with trio.move_on_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                for server in servers:
                    if server != self._own.server_name:
                        nursery.start_soon(self._fetch, server, wanted[server], now)
        answer: list[JsonObject] = []
        for server in servers:
            if server == self._own.server_name:
                answer.append(self._own.document())
                continue
            for document in server_keys.documents(self._db.read, server, _key_ids(wanted[server])):
                answer.append(self._own.sign(canonical.loads(document.json)))
        return answer

    async def _fetch(self, server: str, keys: Mapping[str, int], now: int) -> None:
        """Ask the server itself if what we have of it will not do."""
        key_ids = _key_ids(keys)
        if key_ids:
            until = {key_id: keys[key_id] or now for key_id in key_ids}
            if not self._fetcher.missing({server: until}):
                return
        else:
            least = max(keys.values(), default=0) or now
            if any(
                document.valid_until_ts >= least
                and now < (document.fetched_ts + document.valid_until_ts) // 2
                for document in server_keys.documents(self._db.read, server)
            ):
                return  # the spec: keep an answer for half of its life
        await self._fetcher.refresh(server)


def _key_ids(keys: Mapping[str, int]) -> list[str]:
    return [key_id for key_id in keys if key_id][:50]
