# SPDX-License-Identifier: Apache-2.0
"""Server keys (spec: server-server-api, "Retrieving server keys"): a first form, in memory only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minihs.federation.client import FederationClient
from minihs.matrix import unpadded
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.matrix.federation_errors import FederationError, KeyUnavailable
from minihs.matrix.signatures import (
    SignatureError,
    SigningKey,
    servers_that_must_sign,
    sign_json,
    verify_event_signature,
    verify_json,
)
from minihs.runtime import Runtime
from minihs.store.database import Database


class Keyring:
    def __init__(
        self, our_name: str, signing_key: SigningKey, db: Database, runtime: Runtime, client: FederationClient
    ) -> None:
        self._our_name = our_name
        self._key = signing_key
        self._runtime = runtime
        self._client = client
        self._keys: dict[str, dict[str, bytes]] = {our_name: {signing_key.key_id: signing_key.verify_key}}

    def own_document(self) -> JsonObject:
        document = {
            "server_name": self._our_name,
            "valid_until_ts": self._runtime.clock.now_ms() + 24 * 3600_000,
            "verify_keys": {self._key.key_id: {"key": self._key.verify_key_base64}},
            "old_verify_keys": {},
        }
        return sign_json(document, self._our_name, self._key)

    async def query_keys(self, wanted: Mapping[str, Mapping[str, int]]) -> list[JsonObject]:
        return [self.own_document() for name in wanted if name == self._our_name]

    async def key(self, server: str, key_id: str) -> bytes:
        known = self._keys.get(server, {})
        if key_id not in known:
            try:
                document = await self._client.server_keys(server)
            except FederationError as error:
                raise KeyUnavailable(f"no key of {server}: {error}") from error
            found = {
                name: unpadded.decode(entry["key"])
                for name, entry in document["verify_keys"].items()
                if name.startswith("ed25519:")
            }
            for name, public in found.items():
                verify_json(document, server, name, public)
            known = self._keys[server] = found
        if key_id not in known:
            raise KeyUnavailable(f"{server} has no key {key_id}")
        return known[key_id]

    async def verify_events(self, events: Sequence[Event]) -> list[Exception | None]:
        return [await self._verify(event) for event in events]

    async def _verify(self, event: Event) -> Exception | None:
        for server in servers_that_must_sign(event):
            names: Any = event.json.get("signatures", {}).get(server, {})
            try:
                if not names:
                    raise SignatureError(f"not signed by {server}")
                name = next(iter(names))
                verify_event_signature(event, server, name, await self.key(server, name))
            except SignatureError as error:
                return error
        return None
