# SPDX-License-Identifier: Apache-2.0
"""CVE-2018-12423: in a room without power levels anybody could send state."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.store.events import Outcome
from minihs.testing.events import RoomFactory
from tests.advisories.kit import ALICE, MALLORY, siege


@pytest.mark.parametrize("version", ["1", "2", "6", "10", "11", "12"])
def test_without_power_levels_only_the_creator_has_power(version: str) -> None:
    room = RoomFactory(version, ALICE, bare=True)
    room.join(ALICE)
    room.send(ALICE, "m.room.join_rules", {"join_rule": "public"}, "")
    room.join(MALLORY)
    room.send(ALICE, "m.room.topic", {"topic": "hers"}, "")
    for type, content, state_key in [
        ("m.room.topic", {"topic": "mine"}, ""),
        ("m.room.power_levels", {"users": {MALLORY: 100}}, ""),
        ("m.room.server_acl", {"allow": ["peer.test"]}, ""),
        ("m.room.member", {"membership": "ban"}, ALICE),
    ]:
        event = room.build(MALLORY, type, content, state_key)
        with pytest.raises(AuthError):
            check_auth(event, room.state)
    check_auth(room.build(MALLORY, "m.room.message", {"body": "hello"}), room.state)


@pytest.mark.parametrize("version", ["6", "12"])
async def test_the_running_server_holds_a_stranger_to_it(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        # The levels are as good as gone for who names auth events without them.
        member = at.state()["m.room.member", MALLORY]
        create = [] if version == "12" else [at.state()["m.room.create", ""]]
        pdu = at.event("m.room.topic", {"topic": "mine"}, "", auth=[*create, member])
        await at.send(pdu)
        assert at.outcome(at.id_of(pdu)) is Outcome.REJECTED
        assert ("m.room.topic", "") not in at.state()
        await at.unharmed()
