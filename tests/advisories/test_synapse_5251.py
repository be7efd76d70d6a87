# SPDX-License-Identifier: Apache-2.0
"""Synapse #5251: keys that a notary told were believed without the signature of the server whose keys they
are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix.signatures import SigningKey, sign_json
from minihs.testing.hostile import ScriptedPeer
from tests.advisories.kit import V1, siege

QUERY = "/_matrix/key/v2/query"


@pytest.mark.parametrize(
    "lie", ["only the notary signed", "another key signed", "for another server", "honest"]
)
async def test_a_notary_tells_what_the_server_signed(tmp_path: Path, lie: str) -> None:
    async with siege(tmp_path) as at:
        notary = ScriptedPeer(at.world.internet, "notary.test", clock=at.world.clock)
        gone = ScriptedPeer(at.world.internet, "gone.test", clock=at.world.clock)
        gone.on("GET", "/_matrix/key/", {"errcode": "M_UNKNOWN"})  # it can ask, but nobody gets its keys
        keyring = at.world["one.test"].server.services.keyring
        keyring._fetcher._notaries = ["notary.test"]
        attacker = SigningKey(b"m" * 32, gone.key.key_id.removeprefix("ed25519:"))
        bare: Any = {
            "server_name": "gone.test",
            "verify_keys": {attacker.key_id: {"key": attacker.verify_key_base64}},
            "old_verify_keys": {},
            "valid_until_ts": at.world.clock.now_ms() + 3600_000,
        }
        match lie:
            case "only the notary signed":
                document = bare
            case "another key signed":
                document = sign_json(bare, "gone.test", SigningKey(b"o" * 32, "other"))
            case "for another server":
                document = sign_json({**bare, "server_name": "else.test"}, "else.test", attacker)
            case _:
                document = gone.key_document()
        notary.on("POST", QUERY, {"server_keys": [sign_json(document, "notary.test", notary.key)]})
        key = gone.key if lie == "honest" else attacker
        header = gone.authorization("GET", "one.test", f"{V1}/event/x", key=key)
        status, _ = await gone.request(
            "GET", "one.test", f"{V1}/event/x", headers=[("Authorization", header)]
        )
        assert (status != 401) == (lie == "honest")
        assert notary.received(QUERY)
