# SPDX-License-Identifier: Apache-2.0
"""matrix-spec-proposals#2075: keys said to be valid until the year 9999 were believed until then, and could
not be revoked."""

from __future__ import annotations

from pathlib import Path

import trio

from minihs.federation.key_document import MAX_VALIDITY_MS
from minihs.matrix.signatures import SigningKey
from minihs.testing.hostile import KEY_PATH, Received
from tests.advisories.kit import V1, JsonObject, siege

YEAR_9999 = 253_370_764_800_000


async def test_no_key_is_believed_for_more_than_a_week(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:

        def document(_: Received) -> JsonObject:
            return at.peer.key_document(valid_until_ts=YEAR_9999)

        at.peer.on("GET", KEY_PATH, document)
        await trio.sleep(25 * 3600)  # the one from before has run out
        await at.unharmed()
        stolen, at.peer.key = at.peer.key, SigningKey(b"n" * 32, "new")
        # Known still, and believed; after a week it is asked for again, and gone.
        await trio.sleep(MAX_VALIDITY_MS / 1000 + 3600)
        header = at.peer.authorization("GET", "one.test", f"{V1}/event/x", key=stolen)
        status, answer = await at.ask("GET", f"{V1}/event/x", headers=[("Authorization", header)])
        assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED")
        read = at.rooms.parts.db.read
        latest = read.execute(
            "SELECT MAX(valid_until_ts) FROM server_keys WHERE server = 'peer.test'"
        ).fetchone()[0]
        assert latest <= at.world.clock.now_ms() + MAX_VALIDITY_MS
        status, _ = await at.ask("GET", f"{V1}/version")
        assert status == 200
