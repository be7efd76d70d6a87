# SPDX-License-Identifier: Apache-2.0
"""Synapse 1.7.1 (#6501 to #6530): an event was authorised by the auth events of another room."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.store.events import Outcome
from tests.advisories.kit import ALICE, MALLORY, Siege, siege


def auth_of(at: Siege, room: str) -> dict[tuple[str, str], str]:
    head = at.rooms.parts.head(room)
    return at.rooms.parts.graph.full(head.current)


@pytest.mark.parametrize("version", ["2", "6", "11", "12"])
@pytest.mark.parametrize("swapped", ["m.room.member", "m.room.power_levels", "m.room.create"])
async def test_what_another_room_allows_counts_for_nothing_here(
    tmp_path: Path, version: str, swapped: str
) -> None:
    async with siege(tmp_path, version=version) as at:
        # A room in which Mallory is everything, whose events one.test knows.
        victim, mighty = at.room, {MALLORY: 100} | ({} if version == "12" else {ALICE: 100})
        hers = await at.alice.create_room(
            preset="public_chat", room_version=version, power_level_content_override={"users": mighty}
        )
        await at.enter(hers)
        own = auth_of(at, hers)
        at.room = at.forger.room_id = victim
        keys = [("m.room.power_levels", ""), ("m.room.member", MALLORY)]
        if version != "12":
            keys.append(("m.room.create", ""))
        auth = [own[key] if key[0] == swapped else at.state()[key] for key in keys]
        if version == "12" and swapped == "m.room.create":
            auth.append(own["m.room.create", ""])
        pdu = at.event("m.room.topic", {"topic": "mine"}, "", auth=auth)
        await at.send(pdu)
        assert at.outcome(at.id_of(pdu)) in (None, Outcome.REJECTED)
        assert ("m.room.topic", "") not in at.state()
        await at.unharmed()
