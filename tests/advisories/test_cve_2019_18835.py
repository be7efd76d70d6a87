# SPDX-License-Identifier: Apache-2.0
"""CVE-2019-18835: /send_join, /send_leave and /invite took events that came from the wrong server, or were
something else than the path says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.testing.hostile import ScriptedPeer
from tests.advisories.kit import ALICE, MALLORY, V1, V2, JsonObject, Siege, seg, siege

GUEST = "@guest:peer.test"


def changes(verb: str) -> dict[str, JsonObject]:
    other_membership = {"join": "leave", "leave": "join", "knock": "join", "invite": "join"}[verb]
    return {
        "another type": {
            "type": "m.room.power_levels",
            "state_key": "",
            "content": {"users": {MALLORY: 100}},
        },
        "not a state event": {"state_key": None},
        "another membership": {"content": {"membership": other_membership}},
        "no membership": {"content": {}},
        "another user's": {
            "state_key": "@somebody:peer.test" if verb != "invite" else "@alice:elsewhere.test"
        },
        "by a user of ours": {"sender": ALICE, "state_key": ALICE},
        "by a user of a third server": {"sender": "@x:third.test", "state_key": "@x:third.test"},
    }


def request(at: Siege, verb: str, pdu: JsonObject) -> tuple[str, Any]:
    place = f"{seg(at.room)}/{seg(at.id_of(pdu))}"
    if verb == "invite":
        version = at.forger.version.version
        return f"{V2}/invite/{place}", {"room_version": version, "event": pdu, "invite_room_state": []}
    return f"{V1 if verb == 'knock' else V2}/send_{verb}/{place}", pdu


@pytest.mark.parametrize("verb", ["join", "leave", "knock", "invite"])
async def test_an_event_that_is_not_what_the_path_says_is_refused(tmp_path: Path, verb: str) -> None:
    async with siege(tmp_path, version="11") as at:
        if verb == "knock":
            await at.alice.set_state(at.room, "m.room.join_rules", {"join_rule": "knock"})
        user = {"leave": MALLORY, "invite": ALICE}.get(verb, GUEST)
        sender = MALLORY if verb == "invite" else user
        for name, change in changes(verb).items():
            draft = at.draft("m.room.member", {"membership": verb}, user, sender=sender) | change
            if draft["state_key"] is None:
                del draft["state_key"]
            pdu = at.seal(draft)
            before = at.state()
            status, answer = await at.ask("PUT", *request(at, verb, pdu))
            assert status in (400, 403), f"{name}: {status} {answer}"
            assert "signatures" not in str(answer), name
            await at.rest()
            assert at.outcome(at.id_of(pdu)) is None, name
            assert at.state() == before, name
        await at.unharmed()


async def test_another_server_can_not_hand_in_the_event_of_a_server(tmp_path: Path) -> None:
    """It is rightly signed, but whoever hands it in is not its sender's server."""
    async with siege(tmp_path) as at:
        third = ScriptedPeer(at.world.internet, "third.test", clock=at.world.clock)
        leave = at.member({"membership": "leave"})
        uri = f"{V2}/send_leave/{seg(at.room)}/{seg(at.id_of(leave))}"
        status, answer = await third.request("PUT", "one.test", uri, leave)
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")
        assert at.outcome(at.id_of(leave)) is None
        await at.unharmed()
