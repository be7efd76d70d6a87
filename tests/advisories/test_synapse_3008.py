# SPDX-License-Identifier: Apache-2.0
"""Synapse #3008: a number was accepted that could not be written again, and /sync was broken for everybody in
the room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, MALLORY, V1, seg, siege

ODD: dict[str, Any] = {
    "2^53": 2**53, "2^63": 2**63, "2^64": 2**64, "2^100": 2**100, "1e400 as a number": 10**400, "float": 1.5,
    "small": 1e-7, "negative zero": -0.0, "large": 1e300, "many digits": 0.1 + 0.2, "emoji": "\U0001f600",
    "NUL": "\0", "separators": "\u2028\u2029", "markup": "</script>", "key \U0001f600": {"\uffff": 1,
    "\U00010000": 2},
}  # fmt: skip


@pytest.mark.parametrize("version", ["1", "5", "6", "12"])
async def test_what_is_accepted_can_be_told_again_everywhere(tmp_path: Path, version: str) -> None:
    users = {MALLORY: 50} if version == "12" else {MALLORY: 50, ALICE: 100}
    async with siege(
        tmp_path, version=version, room={"power_level_content_override": {"users": users}}
    ) as at:
        await at.alice.sync()
        accepted = {}
        for name, value in ODD.items():
            pdu = at.event("x.y", {"value": value}, name)
            await at.send(pdu)
            if at.outcome(at.id_of(pdu)) is Outcome.ACCEPTED:
                accepted[name] = value
            else:
                assert version not in ("1", "5") or value >= 2**63, name
        # Strings are no trouble in any version; numbers that are no 53-bit integers are in old ones only.
        assert set(accepted) >= {"emoji", "NUL", "separators", "markup"}
        assert ("float" in accepted) == (version in ("1", "5"))

        state = await at.alice.state(at.room)
        seen = {key: event["content"]["value"] for (kind, key), event in state.items() if kind == "x.y"}
        assert seen == accepted
        synced = (await at.alice.sync())["rooms"]["join"][at.room]
        events = [*synced.get("state", {}).get("events", []), *synced["timeline"]["events"]]
        assert {e["state_key"] for e in events if e["type"] == "x.y"} == set(accepted)
        assert len([e for e in await at.alice.messages(at.room) if e["type"] == "x.y"]) == len(accepted)
        for uri in (
            f"{V1}/state/{seg(at.room)}?event_id={seg(at.forger.tips[0])}",
            f"{V1}/backfill/{seg(at.room)}?v={seg(at.forger.tips[0])}&limit=100",
        ):
            status, answer = await at.ask("GET", uri)
            assert status == 200
            found = [pdu for pdu in answer["pdus"] if pdu["type"] == "x.y"]
            assert len(found) >= len(accepted) - 1
        await at.unharmed()
