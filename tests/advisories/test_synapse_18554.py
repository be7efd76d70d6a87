# SPDX-License-Identifier: Apache-2.0
"""Synapse #18554: an event of one's own with a number that strict servers refuse; they refused every
transaction with it, and nothing went out to them any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.testing.hostile import Received, Reply
from tests.advisories.kit import V1, siege

HUGE: list[Any] = [2**53, -(2**53), 9007199254741000, 2**63, 1.5, 1e300, [{"deep": 2**60}]]


@pytest.mark.parametrize("version", ["6", "12"])
async def test_we_make_no_event_with_such_a_number(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        for value in HUGE:
            for path in (
                f"/rooms/{at.room}/send/m.room.message/t{value!r:.20}",
                f"/rooms/{at.room}/state/x.y/",
            ):
                status, answer = await at.alice.ask(
                    "PUT", path.replace(" ", "").replace("{", ""), {"n": value}
                )
                assert (status, answer["errcode"]) == (400, "M_BAD_JSON"), value
        await at.unharmed()


async def test_an_event_that_is_refused_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        arrived: list[str] = []

        def take(received: Received) -> Any:
            bodies = [pdu["content"].get("body", "") for pdu in received.json["pdus"]]
            if "poison" in bodies:
                return Reply(400, {"errcode": "M_BAD_JSON", "error": "A number is too large."})
            arrived.extend(bodies)
            return {"pdus": {}}

        at.peer.on("PUT", f"{V1}/send/", take)
        texts = [*(f"before {n}" for n in range(5)), "poison", *(f"after {n}" for n in range(5))]
        for text in texts:
            await at.alice.send(at.room, text)
        await trio.sleep(3600)
        assert [text for text in arrived if text] == [text for text in texts if text != "poison"]
        await at.alice.send(at.room, "and on it goes")
        await trio.sleep(60)
        assert arrived[-1] == "and on it goes"
