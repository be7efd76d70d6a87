# SPDX-License-Identifier: Apache-2.0
"""CVE-2022-39200 (Dendrite 0.9.8): what /get_missing_events gave was not checked for signatures; and it could
be of any room, and anything but what had been asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, V1, Siege, siege


async def sent_over_a_gap(at: Siege, parent: dict[str, object], *given: dict[str, object]) -> str:
    """An event whose parent is missing; the peer gives `given` when it is asked. The event's id."""
    at.answer_gaps(get_missing_events={"events": [*given]})
    at.serve_events({at.id_of(parent): parent})
    child = at.event(prev=[at.id_of(parent)])
    await at.send(child)
    return at.id_of(child)


@pytest.mark.parametrize("version", ["6", "12"])
async def test_what_is_missing_must_be_signed_and_of_the_room(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        good = at.event()
        child = await sent_over_a_gap(at, good, good)
        assert at.outcome(at.id_of(good)) is Outcome.ACCEPTED
        assert at.outcome(child) is Outcome.ACCEPTED

        in_her_name = at.draft("m.room.topic", {"topic": "mine"}, "", sender=ALICE)
        for bad in (
            {**at.event(), "signatures": {}},
            at.seal(in_her_name),
            at.seal(at.draft() | {"room_id": "!" + "x" * 43 if version == "12" else "!other:peer.test"}),
        ):
            await sent_over_a_gap(at, bad, bad)
            assert at.outcome(at.id_of(bad)) is None
        assert ("m.room.topic", "") not in at.state()
        assert len(at.peer.received(f"{V1}/get_missing_events/")) >= 4
        await at.unharmed()


async def test_what_nobody_asked_for_is_not_taken(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        parent, stray = at.event(), at.event()
        child = await sent_over_a_gap(at, parent, parent, stray)
        assert at.outcome(child) is Outcome.ACCEPTED
        assert at.outcome(at.id_of(stray)) is None
        await at.unharmed()
