# SPDX-License-Identifier: Apache-2.0
"""CVE-2025-61672: device keys were stored unchecked, and the update about them could not be sent; nor could
anything after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.testing.hostile import Received, Reply
from tests.advisories.kit import MALLORY, V1, siege

MALFORMED: dict[str, Any] = {
    "no object": [1, 2],
    "nothing in it": {},
    "keys are a list": {"keys": ["x"]},
    "keys are numbers": {"keys": {"ed25519:DEV": 5}},
    "algorithms are no list": {"algorithms": "x"},
    "algorithms are numbers": {"algorithms": [5]},
    "signatures are a list": {"signatures": []},
    "signatures are numbers": {"signatures": {"@alice:one.test": {"ed25519:DEV": 5}}},
    "somebody else's": {"user_id": MALLORY},
    "another device's": {"device_id": "OTHER"},
    "a float": {"x": 1.5},
    "a number that is too large": {"x": 2**60},
    "too many bytes": {"x": "y" * 66_000},
}


async def upload(at: Any, **changes: Any) -> tuple[int, Any]:
    device = at.alice.device_id
    keys = {
        "user_id": at.alice.user_id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{device}": "x" * 43},
        "signatures": {at.alice.user_id: {f"ed25519:{device}": "y" * 86}},
    } | changes
    return await at.alice.ask("POST", "/keys/upload", {"device_keys": keys})


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_keys_are_not_stored(tmp_path: Path, name: str) -> None:
    async with siege(tmp_path) as at:
        change = MALFORMED[name]
        if isinstance(change, dict) and change:
            status, answer = await upload(at, **change)
        else:
            status, answer = await at.alice.ask("POST", "/keys/upload", {"device_keys": change})
        assert status in (400, 413), answer
        assert (await at.alice.post("/keys/query", {"device_keys": {at.alice.user_id: []}}))[
            "device_keys"
        ] in (
            {},
            {at.alice.user_id: {}},
        )
        await at.unharmed()


async def test_an_update_that_a_server_refuses_stops_nothing_else(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        arrived: list[str] = []

        def take(received: Received) -> Any:
            if any(edu["edu_type"] == "m.device_list_update" for edu in received.json.get("edus", [])):
                return Reply(400, {"errcode": "M_BAD_JSON", "error": "What is that?"})
            arrived.extend(pdu["content"].get("body", "") for pdu in received.json.get("pdus", []))
            return {"pdus": {}}

        at.peer.on("PUT", f"{V1}/send/", take)
        assert (await upload(at))[0] == 200
        for number in range(5):
            await at.alice.send(at.room, f"message {number}")
        await trio.sleep(2 * 3600)
        assert [text for text in arrived if text.startswith("message")] == [f"message {n}" for n in range(5)]


async def test_what_comes_from_others_is_checked_as_well(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        for change in (None, 5, "x", [], {}, {"user_id": 5}, {"user_id": MALLORY, "stream_id": "x"}):
            await at.tell("m.device_list_update", change)
            await at.tell("m.signing_key_update", change)
        keys = {"user_id": MALLORY, "device_id": "DEV", "stream_id": 5, "prev_id": ["x", {}], "keys": [5]}
        await at.tell("m.device_list_update", keys)
        at.peer.on(
            "GET", f"{V1}/user/devices/", {"user_id": MALLORY, "stream_id": "x", "devices": [5, {}, None]}
        )
        at.peer.on("POST", f"{V1}/user/keys/query", {"device_keys": {MALLORY: {"DEV": [5]}}})
        await trio.sleep(60)
        status, answer = await at.alice.ask("POST", "/keys/query", {"device_keys": {MALLORY: []}})
        assert status == 200
        assert answer["device_keys"].get(MALLORY, {}) == {}
        await at.alice.sync()
        await at.unharmed()
