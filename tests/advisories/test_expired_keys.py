# SPDX-License-Identifier: Apache-2.0
"""From room version 5 on an event counts only if its key was valid at the event's own time; servers that
did not look took events signed by a key that had been stolen and retired."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.matrix.signatures import SigningKey, sign_event
from minihs.store.events import Outcome
from minihs.testing.hostile import KEY_PATH, Received
from tests.advisories.kit import JsonObject, siege


@pytest.mark.parametrize("version", ["1", "4", "5", "6", "12"])
async def test_a_retired_key_signs_nothing_new(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        stolen, retired_at = at.peer.key, at.world.clock.now_ms() - 3600_000
        at.peer.key = SigningKey(b"n" * 32, "new")
        at.forger.world.keys["peer.test"] = at.peer.key
        old = {stolen.key_id: {"key": stolen.verify_key_base64, "expired_ts": retired_at}}

        def document(_: Received) -> JsonObject:
            return at.peer.key_document(old_verify_keys=old)

        at.peer.on("GET", KEY_PATH, document)
        await trio.sleep(25 * 3600)
        await at.unharmed()

        def by_the_thief(ts: int) -> JsonObject:
            bare = at.event(origin_server_ts=ts) | {"signatures": {}}
            return sign_event(bare, at.forger.version, "peer.test", stolen)

        fresh, dated_back = by_the_thief(at.world.clock.now_ms()), by_the_thief(retired_at - 1000)
        await at.send(fresh, dated_back)
        strict = version not in ("1", "4")
        assert (at.outcome(at.id_of(fresh)) is None) == strict
        assert at.outcome(at.id_of(dated_back)) is Outcome.ACCEPTED
        await at.unharmed()


async def test_a_request_is_never_signed_by_a_retired_key(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        stolen = at.peer.key
        at.peer.key = SigningKey(b"n" * 32, "new")
        old = {stolen.key_id: {"key": stolen.verify_key_base64, "expired_ts": at.world.clock.now_ms() - 1}}
        at.peer.on("GET", KEY_PATH, lambda _: at.peer.key_document(old_verify_keys=old))
        await trio.sleep(25 * 3600)
        uri = "/_matrix/federation/v1/event/x"
        header = at.peer.authorization("GET", "one.test", uri, key=stolen)
        status, _ = await at.ask("GET", uri, headers=[("Authorization", header)])
        assert status == 401
