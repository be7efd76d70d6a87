# SPDX-License-Identifier: Apache-2.0
"""The bounds that the specification sets: 50 PDUs and 100 EDUs to a transaction, 65,536 bytes, 20
prev_events and 10 auth_events to an event. One more is refused, by whom it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.matrix import canonical
from minihs.store.events import Outcome
from tests.advisories.kit import JsonObject, Siege, siege
from tests.rooms.forge import rows_of


async def test_fifty_one_pdus_or_a_hundred_and_one_edus(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        pdus = [at.event() for _ in range(51)]
        edus = [{"edu_type": "m.presence", "content": {"push": []}}] * 101
        before = rows_of(at.rooms)
        for body in ({"pdus": pdus}, {"pdus": pdus[:1], "edus": edus}):
            status, answer = await at.send_body(body)
            assert (status, answer["errcode"]) == (400, "M_BAD_JSON")
        assert rows_of(at.rooms) == before
        answer = await at.send(*pdus[:50], edus=edus[:100])
        assert answer == {at.id_of(pdu): {} for pdu in pdus[:50]}
        assert at.outcome(at.id_of(pdus[49])) is Outcome.ACCEPTED


def of_size(at: Siege, size: int) -> JsonObject:
    draft = at.draft(content={"body": ""})
    draft["content"]["body"] = "x" * (size - len(canonical.encode(at.seal(draft))))
    return at.seal(draft)


@pytest.mark.parametrize("version", ["2", "6", "12"])
async def test_events_at_the_bounds_and_beyond(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        strange = [f"$p{n}" + ("x" * 43)[: 41 - len(str(n))] for n in range(21)]
        good = at.forger.auth_events("x", "@mallory:peer.test", None, {})
        taken = [of_size(at, 65_536), at.event(prev=[*at.forger.tips, *strange][:20])]
        refused = [
            of_size(at, 65_537),
            at.event(prev=strange),
            at.event(auth=[*good, *strange][:11]),
            at.event("x" * 256),
            at.event("x.y", {}, "x" * 256),
        ]
        answer = await at.send(*taken, *refused)
        for pdu in taken:
            assert answer[at.id_of(pdu)] == {}
        for pdu in refused:
            assert "error" in answer[at.id_of(pdu)]
            assert at.outcome(at.id_of(pdu)) is None
        assert at.outcome(at.id_of(taken[0])) is Outcome.ACCEPTED
        await at.unharmed()
