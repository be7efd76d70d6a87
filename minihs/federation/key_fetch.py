# SPDX-License-Identifier: Apache-2.0
"""Getting other servers' keys: from themselves, and from notaries where that fails (spec: "Retrieving server
keys").

A server is asked once, however many events wait for its keys, and not again at once when it has just answered
or just failed. Notaries are asked for all that is missing in one request. A notary can keep back keys, and
vouch for those of servers that are gone; to invent one it would have to be believed, so it is only asked when
the server itself does not answer, its answer must carry the server's own signature beside its own, and it
never overrides what the server said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from minihs.federation import key_document
from minihs.federation.client import FederationClient
from minihs.federation.locks import KeyedLocks
from minihs.matrix.federation_errors import FederationError
from minihs.matrix.signatures import SignatureError, verify_json
from minihs.runtime import Runtime
from minihs.store import server_keys
from minihs.store.database import Database, Tx
from minihs.store.server_keys import StoredKey

log = structlog.get_logger(__name__)

type Wanted = Mapping[str, Mapping[str, int]]
"""Server to key ids to the time until which each must be valid (0: no matter)."""

AT_ONCE = 50
"""Servers asked at the same time."""

PER_NOTARY_REQUEST = 50

MIN_INTERVAL = 10.0
"""Seconds between two questions to one server, however urgent, and whatever it answered."""

FIRST_BACKOFF, MAX_BACKOFF = 60.0, 3600.0
MAX_REMEMBERED = 10_000
FETCH_TIMEOUT, FETCH_TIMEOUT_PER_SERVER, MAX_FETCH_TIMEOUT = 30.0, 0.5, 300.0
"""Seconds for one `fetch`, all servers and notaries together. The state of a large room is signed by
thousands of servers, many of them gone."""


@dataclass(slots=True)
class _Memory:
    """How asking a server went, in trio time."""

    asked: float = -float("inf")
    failures: int = 0

    def may_ask(self, now: float, *, urgent: bool) -> bool:
        pause = MIN_INTERVAL
        if self.failures and not urgent:
            pause = min(FIRST_BACKOFF * 2 ** (self.failures - 1), MAX_BACKOFF)
        return now >= self.asked + pause


class KeyFetcher:
    def __init__(
        self, our_name: str, runtime: Runtime, db: Database, client: FederationClient, notaries: Iterable[str]
    ) -> None:
        self._our_name = our_name
        self._runtime = runtime
        self._db = db
        self._client = client
        self._notaries = [notary for notary in notaries if notary != our_name]
        self._locks: KeyedLocks[str] = KeyedLocks()
        self._memory: dict[str, _Memory] = {}
        self._slots = trio.CapacityLimiter(AT_ONCE)

    async def fetch(self, wanted: Wanted, *, urgent: bool = False) -> None:
        """Get what is missing of `wanted` into the database, as far as it is to be had now.

        `urgent`: a server is just calling us, so it is likely up, whatever we remember.
        """
        missing = self.missing(wanted)
        seconds = FETCH_TIMEOUT + FETCH_TIMEOUT_PER_SERVER * len(missing)
        with trio.move_on_after(min(seconds, MAX_FETCH_TIMEOUT)):
            async with trio.open_nursery() as nursery:
                for server in missing:
                    nursery.start_soon(self._ask_directly, server, missing[server], urgent)
            for notary in self._notaries:
                missing = self.missing(missing)
                if not missing:
                    return
                await self._ask_notary(notary, missing)

    async def refresh(self, server: str) -> None:
        """Ask a server again though its keys are still valid, unless it was asked a moment ago."""
        with trio.move_on_after(FETCH_TIMEOUT):
            await self._ask_directly(server, None, False)

    def missing(self, wanted: Wanted) -> dict[str, dict[str, int]]:
        """What of `wanted` the database does not hold."""
        found: dict[str, dict[str, int]] = {}
        for server, keys in wanted.items():
            known = server_keys.get(self._db.read, server)
            lacking = {
                key_id: until for key_id, until in keys.items() if not _suffices(known.get(key_id), until)
            }
            if lacking:
                found[server] = lacking
        return found

    async def _ask_directly(self, server: str, keys: Mapping[str, int] | None, urgent: bool) -> None:
        """`keys` None: whatever we have."""
        async with self._locks.hold(server):
            if keys is not None and not self.missing({server: keys}):
                return  # somebody else fetched them while we waited
            memory = self._memory_of(server)
            now = trio.current_time()
            if not memory.may_ask(now, urgent=urgent):
                return
            memory.asked = now
            try:
                async with self._slots:
                    document = await self._client.server_keys(server)
                await self._save(key_document.parse(document, server), direct=True)
            except (FederationError, SignatureError) as error:
                memory.failures = min(memory.failures + 1, 20)
                log.debug("could not get a server's keys", server=server, error=str(error))
            else:
                memory.failures = 0

    async def _ask_notary(self, notary: str, missing: Wanted) -> None:
        asked = [server for server in missing if server != notary]
        for start in range(0, len(asked), PER_NOTARY_REQUEST):
            part = {server: missing[server] for server in asked[start : start + PER_NOTARY_REQUEST]}
            try:
                documents = await self._client.query_notary(notary, part)
            except FederationError as error:
                log.debug("a notary did not answer", notary=notary, error=str(error))
                return
            for document in documents:
                await self._take_from_notary(notary, document, part)

    async def _take_from_notary(self, notary: str, document: Any, asked: Wanted) -> None:
        """Keep one document of a notary's answer, if it is what was asked for and rightly signed by both."""
        server = document.get("server_name") if isinstance(document, dict) else None
        if not isinstance(server, str) or server not in asked:
            return
        try:
            parsed = key_document.parse(document, server)
            await self._check_notary_signature(notary, document)
        except SignatureError as error:
            log.info("a notary's answer does not hold", notary=notary, server=server, error=str(error))
            return
        await self._save(parsed, direct=False)

    async def _check_notary_signature(self, notary: str, document: dict[str, Any]) -> None:
        signatures = document["signatures"].get(notary)
        if not isinstance(signatures, dict):
            raise SignatureError("the notary has not signed it")
        await self._ask_directly(notary, dict.fromkeys(list(signatures)[:5], 0), False)
        error = SignatureError("no key of the notary is known")
        for key_id, key in server_keys.get(self._db.read, notary).items():
            if key_id in signatures and key.direct:
                try:
                    verify_json(document, notary, key_id, key.public_key)
                except SignatureError as failed:
                    error = failed
                else:
                    return
        raise error

    async def _save(self, document: key_document.KeyDocument, *, direct: bool) -> None:
        now = self._runtime.clock.now_ms()
        json = document.bytes

        def save(tx: Tx) -> list[str]:
            return server_keys.save(
                tx,
                document.server,
                document.keys,
                json=json,
                fetched_ts=now,
                valid_until_ts=document.capped(now),
                direct=direct,
            )

        for key_id in await self._db.write(save):
            log.warning(
                "a key was to be replaced by another of the same id", server=document.server, key=key_id
            )

    def _memory_of(self, server: str) -> _Memory:
        memory = self._memory.pop(server, None) or _Memory()
        while len(self._memory) >= MAX_REMEMBERED:
            del self._memory[next(iter(self._memory))]
        self._memory[server] = memory  # the most recent are last
        return memory


def _suffices(key: StoredKey | None, until: int) -> bool:
    """Whether asking again could make the key no better. (That of a retired one is settled.)"""
    return key is not None and (key.expired_ts is not None or key.valid_until_ts >= until)
