# SPDX-License-Identifier: Apache-2.0
"""Whether a signature holds: which key it must be made with, and whether that counted at the time.

For an event of room version 5 and later, the key must have been valid at the event's `origin_server_ts`: by
the document's `valid_until_ts` (capped at seven days after it was fetched), or by `expired_ts` for a key that
is no longer in use. Earlier versions don't ask. A request must be signed with a key in use, valid now.

A key that can't be had is another thing than a wrong signature (`KeyUnavailable`): its event may be good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import trio

from minihs.federation.client import FederationClient
from minihs.federation.key_document import MAX_VALIDITY_MS
from minihs.federation.key_fetch import KeyFetcher
from minihs.federation.notary import Notary
from minihs.federation.own_keys import OwnKeys
from minihs.federation.x_matrix import is_key_id
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import KeyUnavailable
from minihs.matrix.signatures import (
    POLICY_KEY_ID,
    SignatureError,
    servers_that_must_sign,
    verify_bytes,
    verify_event_signature,
    verify_json,
)
from minihs.runtime import Runtime
from minihs.store import server_keys
from minihs.store.database import Database
from minihs.store.server_keys import StoredKey

MAX_SIGNATURES = 5
"""Signatures by one server that are tried; an honest event has one, rarely two."""

FETCH_AHEAD_MS = 3600_000
"""Keys are fetched for events up to this far in the future; how valid they are is another matter."""

CHUNK = 100
"""Events verified in one go on a thread."""

INLINE = 3
"""So few events are verified on the loop: 60 µs each, less than a trip to a thread."""

THREADS = 2


class _Check(NamedTuple):
    """One server's signature on an event: any one of these will do."""

    server: str
    keys: tuple[tuple[str, bytes], ...]


class Keyring:
    """Checks signatures; fetches keys as needed."""

    def __init__(
        self,
        own: OwnKeys,
        db: Database,
        runtime: Runtime,
        client: FederationClient,
        notaries: Sequence[str] = (),
    ) -> None:
        self.own = own
        self._db = db
        self._runtime = runtime
        self._fetcher = KeyFetcher(own.server_name, runtime, db, client, notaries)
        self._notary = Notary(own, db, runtime, self._fetcher)
        self._stale = trio.open_memory_channel[str](100)

    async def run(self) -> None:
        """Renew the keys of servers that talk to us, before they run out. Runs until cancelled."""
        async for server in self._stale[1]:
            await self._fetcher.refresh(server)

    # -- what the server publishes --

    def own_document(self) -> JsonObject:
        """Our key document."""
        return self.own.document()

    async def query_keys(self, wanted: Mapping[str, Mapping[str, int]]) -> list[JsonObject]:
        """As a notary: the documents of these servers, with our signature."""
        return await self._notary.query(wanted)

    # -- events --

    async def verify_events(self, events: Sequence[Event]) -> list[Exception | None]:
        """For each event None, or the SignatureError that says why a signature it must have does not hold."""
        results: list[Exception | None] = [None] * len(events)
        signers: list[Mapping[str, list[str]]] = []
        for position, event in enumerate(events):
            try:
                signers.append(_signers(event))
            except SignatureError as error:
                results[position] = error
                signers.append({})
        keys = await self._keys_for(events, signers)
        ready: list[tuple[int, Event, list[_Check]]] = []
        for position, event in enumerate(events):
            if results[position] is not None:
                continue
            try:
                checks = [
                    _Check(server, self._usable(event, server, key_ids, keys[server]))
                    for server, key_ids in signers[position].items()
                ]
            except SignatureError as error:
                results[position] = error
            else:
                ready.append((position, event, checks))
        for position, problem in await self._verify(ready):
            results[position] = problem
        return results

    async def _keys_for(
        self, events: Sequence[Event], signers: Sequence[Mapping[str, list[str]]]
    ) -> dict[str, dict[str, StoredKey]]:
        """All keys of all servers that have signed, each server asked at most once."""
        latest = self._runtime.clock.now_ms() + FETCH_AHEAD_MS
        wanted: dict[str, dict[str, int]] = {}
        for event, of_event in zip(events, signers, strict=True):
            until = min(event.origin_server_ts, latest) if event.version.enforce_key_validity else 0
            for server, key_ids in of_event.items():
                of_server = wanted.setdefault(server, {})
                for key_id in key_ids:
                    of_server[key_id] = max(of_server.get(key_id, 0), until)
        others = {server: keys for server, keys in wanted.items() if server != self.own.server_name}
        if self._fetcher.missing(others):
            await self._fetcher.fetch(others)
        return {server: self._known(server) for server in wanted}

    def _known(self, server: str) -> dict[str, StoredKey]:
        if server == self.own.server_name:
            return self.own.stored()
        return server_keys.get(self._db.read, server)

    def _usable(
        self, event: Event, server: str, key_ids: Sequence[str], known: Mapping[str, StoredKey]
    ) -> tuple[tuple[str, bytes], ...]:
        """The keys that count for this event. Raises SignatureError if there is none."""
        usable: list[tuple[str, bytes]] = []
        problem: SignatureError = KeyUnavailable(f"the key {key_ids[0]} of {server} is not to be had")
        for key_id in key_ids:
            key = known.get(key_id)
            if key is None:
                continue
            if not event.version.enforce_key_validity or self._counts(key, event.origin_server_ts):
                usable.append((key_id, key.public_key))
            elif key.expired_ts is not None or self._is_far_ahead(event):
                problem = SignatureError(
                    f"the key {key_id} of {server} was not valid when the event was made"
                )
            else:
                problem = KeyUnavailable(f"whether the key {key_id} of {server} is still valid is not known")
        if not usable:
            raise problem
        return tuple(usable)

    @staticmethod
    def _counts(key: StoredKey, ts: int) -> bool:
        return ts <= (key.valid_until_ts if key.expired_ts is None else key.expired_ts)

    def _is_far_ahead(self, event: Event) -> bool:
        """No key can be valid for the event's time, as of today."""
        return event.origin_server_ts > self._runtime.clock.now_ms() + MAX_VALIDITY_MS

    async def _verify(
        self, ready: Sequence[tuple[int, Event, list[_Check]]]
    ) -> list[tuple[int, SignatureError | None]]:
        if len(ready) <= INLINE:
            return _verify_chunk(ready)
        if len(ready) <= CHUNK:
            return await self._runtime.threads.run(_verify_chunk, ready)
        done: list[tuple[int, SignatureError | None]] = []
        limiter = trio.CapacityLimiter(THREADS)

        async def verify(chunk: Sequence[tuple[int, Event, list[_Check]]]) -> None:
            async with limiter:
                done.extend(await self._runtime.threads.run(_verify_chunk, chunk))

        async with trio.open_nursery() as nursery:
            for start in range(0, len(ready), CHUNK):
                nursery.start_soon(verify, ready[start : start + CHUNK])
        return done

    # -- requests and other JSON --

    async def verify_request(
        self, origin: str, message: bytes, signatures: Sequence[tuple[str, bytes]]
    ) -> None:
        """SignatureError unless one of the (key id, signature) is by a key that the server uses now."""
        now = self._runtime.clock.now_ms()
        key_ids = [key_id for key_id, _ in signatures]
        known = self._known(origin)
        if not any(_in_force(known.get(key_id), now) for key_id in key_ids):
            await self._fetcher.fetch({origin: dict.fromkeys(key_ids, now)}, urgent=True)
            known = self._known(origin)
        problem: SignatureError = KeyUnavailable(f"no key of {origin} to check it with is to be had")
        for key_id, signature in signatures:
            key = known.get(key_id)
            if key is None:
                continue
            if not _in_force(key, now):
                problem = SignatureError(f"the key {key_id} of {origin} is no longer valid")
                continue
            try:
                verify_bytes(message, signature, key.public_key)
            except SignatureError as error:
                problem = error
                continue
            self._renew(origin, key, now)
            return
        raise problem

    async def verify_json(self, value: JsonObject, server: str) -> None:
        """SignatureError unless the JSON object is signed by that server, with a key that it uses now."""
        signatures = value.get("signatures")
        of_server = signatures.get(server) if isinstance(signatures, dict) else None
        key_ids = _key_ids(of_server)
        if not key_ids:
            raise SignatureError(f"not signed by {server}")
        now = self._runtime.clock.now_ms()
        if server != self.own.server_name:
            wanted = {server: dict.fromkeys(key_ids, now)}
            if self._fetcher.missing(wanted):
                await self._fetcher.fetch(wanted)
        known = self._known(server)
        problem: SignatureError = KeyUnavailable(f"the key {key_ids[0]} of {server} is not to be had")
        for key_id in key_ids:
            key = known.get(key_id)
            if key is None or not _in_force(key, now):
                continue
            try:
                verify_json(value, server, key_id, key.public_key)
            except SignatureError as error:
                problem = error
            else:
                return
        raise problem

    def _renew(self, server: str, key: StoredKey, now: int) -> None:
        """Past half of the document's life, have it fetched again while there is time."""
        if now < (key.fetched_ts + key.valid_until_ts) // 2 or server == self.own.server_name:
            return
        try:
            self._stale[0].send_nowait(server)
        except trio.WouldBlock:
            pass  # enough to do already; the server will call again


def _in_force(key: StoredKey | None, now: int) -> bool:
    return key is not None and key.expired_ts is None and key.valid_until_ts >= now


def _signers(event: Event) -> dict[str, list[str]]:
    """The servers that must have signed, with the keys they say they used. SignatureError if one is
    missing."""
    try:
        servers = servers_that_must_sign(event)
    except (ValueError, TypeError, AttributeError) as error:
        raise SignatureError("a user id in the event has no server") from error
    signatures = event.json.get("signatures")
    found: dict[str, list[str]] = {}
    for server in servers:
        key_ids = _key_ids(signatures.get(server) if isinstance(signatures, dict) else None)
        if not key_ids:
            raise SignatureError(f"not signed by {server}")
        found[server] = key_ids
    return found


def _key_ids(signatures: object) -> list[str]:
    if not isinstance(signatures, dict):
        return []
    published = [key_id for key_id in signatures if is_key_id(key_id) and key_id != POLICY_KEY_ID]
    return published[:MAX_SIGNATURES]


def _verify_chunk(
    chunk: Sequence[tuple[int, Event, list[_Check]]],
) -> list[tuple[int, SignatureError | None]]:
    """On a thread: pure computation."""
    found = [(position, _first_problem(event, checks)) for position, event, checks in chunk]
    for _, event, _ in chunk:
        event.signed = None  # some live long
    return found


def _first_problem(event: Event, checks: Sequence[_Check]) -> SignatureError | None:
    for check in checks:
        problem: SignatureError | None = None
        for key_id, public_key in check.keys:
            try:
                verify_event_signature(event, check.server, key_id, public_key)
            except SignatureError as error:
                problem = error
            else:
                problem = None
                break
        if problem is not None:
            return problem
    return None
