# SPDX-License-Identifier: Apache-2.0
"""CVE-2018-10657: an event of depth 2^63-1 made a room unusable, and it was done to many."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import siege


@pytest.mark.parametrize("version", ["1", "5", "6", "11", "12"])
async def test_the_deepest_event_does_not_end_a_room(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        deep = [at.draft() | {"depth": depth} for depth in (2**53 - 1, 2**53, 2**63 - 1, 2**63, -1, 2**100)]
        sealed = [at.seal(pdu) for pdu in deep]
        await at.send(*sealed)
        assert at.outcome(at.id_of(sealed[0])) is Outcome.ACCEPTED
        for pdu in sealed[3:]:
            assert at.outcome(at.id_of(pdu)) is None
        if version not in ("1", "5"):
            assert at.outcome(at.id_of(sealed[1])) is None
        # What we build upon it is still an event, for everybody.
        sent = [await at.alice.send(at.room, f"message {number}") for number in range(3)]
        for event_id in sent:
            found = at.rooms.parts.graph.stored(event_id)
            assert found is not None
            assert 0 < found.event.depth <= 2**53 - 1
            assert found.outcome is Outcome.ACCEPTED
        assert await at.alice.set_state(at.room, "m.room.topic", {"topic": "after it"})
        # Depth alone orders nothing: the newest come first.
        newest = [event["event_id"] for event in await at.alice.messages(at.room, limit=4)]
        assert newest[1:] == sent[::-1]
        await at.unharmed()
