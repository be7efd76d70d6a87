# SPDX-License-Identifier: Apache-2.0
"""CVE-2022-39374: an event that had been rejected was accepted into the room's state when it came again, and
the room was beyond repair."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import siege


@pytest.mark.parametrize("version", ["6", "11", "12"])
async def test_rejected_stays_rejected_however_it_comes(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        start = at.forger.tips
        bad = at.event("m.room.topic", {"topic": "mine"}, "")
        bad_id = at.id_of(bad)
        await at.send(bad)
        assert at.outcome(bad_id) is Outcome.REJECTED

        # again, as it was
        await at.send(bad)
        # as a prev event, with the room forked over it so that the state is resolved
        left = at.event(prev=[bad_id])
        right = at.member({"membership": "join", "displayname": "M"}, prev=start)
        await at.send(left, right)
        await at.send(at.event(prev=[at.id_of(left), at.id_of(right)]))
        # as what a gap's state names
        gap = at.event()
        state_ids, chain_ids = at.forger.state_ids_answer()
        at.answer_gaps(state_ids={"pdu_ids": [*state_ids, bad_id], "auth_chain_ids": chain_ids})
        at.serve_events({at.id_of(gap): gap, bad_id: bad})
        after = at.event(prev=[at.id_of(gap)])
        await at.send(after)
        # as an auth event
        auth = [*at.forger.auth_events("m.room.message", "@mallory:peer.test", None, {}), bad_id]
        citing = at.event(auth=auth)
        await at.send(citing)
        assert at.outcome(at.id_of(citing)) is Outcome.REJECTED
        # and after a restart
        await at.world.stop("one.test")
        await at.world.start("one.test")
        await at.send(bad)

        assert at.outcome(bad_id) is Outcome.REJECTED
        assert ("m.room.topic", "") not in at.state()
        assert "m.room.topic" not in str(await at.alice.sync())
        await at.unharmed()
