# SPDX-License-Identifier: Apache-2.0
"""CVE-2024-52815: an invite with malformed room state broke the invited user's /sync for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.advisories.kit import ALICE, MALLORY, V2, seg, siege


def stripped(**changes: Any) -> Any:
    return {"type": "m.room.name", "state_key": "", "sender": MALLORY, "content": {"name": "x"}, **changes}


SHOWN: dict[str, Any] = {
    "not a list": {"a": 1},
    "null": None,
    "rubbish": [None, 5, "x", [], {}, True, 1.5],
    "wrong types": [
        stripped(**{field: value}) for field in stripped() for value in (None, 5, [], {"x": []}, "\0")
    ],
    "large": [stripped(content={"name": "x" * 450_000})],
    "many": [stripped(type="x", state_key=str(number)) for number in range(5000)],
    "the same again and again": [stripped()] * 2000,
    "numbers": [stripped(content={"name": 2**100, "x": 1.5, "y": -0.0})],
    "the create event of another": [
        stripped(type="m.room.create", content={"room_version": "1", "creator": MALLORY, "type": 5})
    ],
    "a member who is no user": [stripped(type="m.room.member", state_key="x", content={"membership": 5})],
    "deep": [stripped(content={"name": [[[[[[[[[[]]]]]]]]]]})],
}


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("version", ["10", "12"])
async def test_whatever_an_invite_shows_sync_goes_on(tmp_path: Path, name: str, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        room = "!" + "i" * 43 if version == "12" else "!hers:peer.test"
        draft = at.draft("m.room.member", {"membership": "invite", "displayname": 5}, ALICE)
        pdu = at.seal(draft | {"room_id": room, "unsigned": {"invite_room_state": SHOWN[name]}})
        body = {"room_version": version, "event": pdu, "invite_room_state": SHOWN[name]}
        status, answer = await at.ask("PUT", f"{V2}/invite/{seg(room)}/{seg(at.id_of(pdu))}", body)
        assert status in (200, 400), answer
        for query in ({}, {"full_state": "true"}):
            synced = await at.alice.sync(**query)
            invited = synced["rooms"].get("invite", {})
            assert (room in invited) == (status == 200)
            if status == 200:
                for event in invited[room]["invite_state"]["events"]:
                    assert isinstance(event["type"], str)
                    assert isinstance(event["state_key"], str)
                    assert isinstance(event["content"], dict)
                assert len(str(invited)) < 300_000
            at.alice.since = None
        await at.alice.ask("POST", f"/rooms/{seg(room)}/leave", {})
        await at.unharmed()
