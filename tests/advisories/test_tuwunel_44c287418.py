# SPDX-License-Identifier: Apache-2.0
"""Tuwunel 44c287418 (2026): an auth event that was no state event ended the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import siege


@pytest.mark.parametrize("version", ["2", "6", "12"])
async def test_strange_auth_events_are_judged_like_others(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        good = at.forger.auth_events("m.room.message", "@mallory:peer.test", None, {})
        message = at.event()
        await at.send(message)
        assert at.outcome(at.id_of(message)) is Outcome.ACCEPTED
        _, chain = at.forger.state_answer()
        at.answer_gaps(event_auth={"auth_chain": chain})
        at.serve_events({})

        no_state_event = at.event(auth=[*good, at.id_of(message)])
        twice = at.event(auth=[*good, good[0]])
        none = at.event(auth=[])
        missing = at.event(auth=[*good[:1], "$nowhere" + (":peer.test" if version == "2" else "")])
        thousands = at.event(auth=[f"$x{number}" for number in range(5000)])
        answer = await at.send(no_state_event, twice, none, missing, thousands)
        assert at.outcome(at.id_of(no_state_event)) is Outcome.REJECTED
        assert at.outcome(at.id_of(none)) is Outcome.REJECTED
        assert at.outcome(at.id_of(missing)) is None  # waits for what it names
        assert "error" in answer[at.id_of(thousands)]
        if version == "2":
            itself = at.event(auth=[*good, "$self:peer.test"], event_id="$self:peer.test")
            await at.send(itself)
            assert at.outcome("$self:peer.test") is not Outcome.ACCEPTED
        await at.unharmed()


async def test_an_auth_chain_with_strangers_in_it_does_no_harm(tmp_path: Path) -> None:
    """The missing auth event is given, and is no state event."""
    async with siege(tmp_path) as at:
        _, chain = at.forger.state_answer()
        stranger = at.event("x.y", {})
        at.answer_gaps(event_auth={"auth_chain": [*chain, stranger]})
        at.serve_events({at.id_of(stranger): stranger})
        good = at.forger.auth_events("m.room.message", "@mallory:peer.test", None, {})
        pdu = at.event(auth=[*good, at.id_of(stranger)])
        await at.send(pdu)
        assert at.outcome(at.id_of(pdu)) in (None, Outcome.REJECTED)
        await at.unharmed()
