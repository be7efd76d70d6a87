# SPDX-License-Identifier: Apache-2.0
"""CVE-2025-68667: /invite signed any event that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.advisories.kit import ALICE, MALLORY, V1, V2, JsonObject, seg, siege

OTHER = "!" + "x" * 43

ATTACKS: dict[str, JsonObject] = {
    "in alice's name": {"sender": ALICE},
    "levels in alice's name": {"type": "m.room.power_levels", "sender": ALICE, "state_key": ""},
    "her join": {"content": {"membership": "join"}, "sender": ALICE},
    "her leave": {"content": {"membership": "leave"}},
    "no member event": {"type": "m.room.topic"},
    "no state event": {"state_key": None},
    "for nobody of ours": {"state_key": "@x:third.test"},
    "for a user we don't have": {"state_key": "@nobody:one.test"},
    "by a third server's user": {"sender": "@x:third.test"},
    "of another room": {"room_id": OTHER},
    "too large": {"content": {"membership": "invite", "reason": "x" * 66_000}},
    "too deep": {"content": {"membership": "invite", "x": [[[[[[]]]]]] * 1, "number": 2**60}},
}


@pytest.mark.parametrize("version", ["10", "11"])
@pytest.mark.parametrize("name", ATTACKS)
async def test_nothing_but_an_invite_is_signed(tmp_path: Path, version: str, name: str) -> None:
    async with siege(tmp_path, version=version) as at:
        room = "!hers:peer.test"
        draft = at.draft("m.room.member", {"membership": "invite"}, ALICE) | {"room_id": room} | ATTACKS[name]
        if draft["state_key"] is None:
            del draft["state_key"]
        pdu = at.seal(draft)
        place = f"{seg(room)}/{seg(at.id_of(pdu))}"
        body = {"room_version": version, "event": pdu, "invite_room_state": []}
        attempts: list[tuple[str, Any]] = [(f"{V2}/invite/{place}", body), (f"{V1}/invite/{place}", pdu)]
        for uri, content in attempts:
            status, answer = await at.ask("PUT", uri, content)
            assert status in (400, 403, 404, 413), answer
            assert "one.test" not in str(answer.get("signatures", "")), answer
        assert at.outcome(at.id_of(pdu)) is None
        assert room not in str((await at.alice.sync())["rooms"])
        await at.unharmed()


async def test_an_invite_is_signed(tmp_path: Path) -> None:
    """So the above is refused for what is wrong with it."""
    async with siege(tmp_path, version="11") as at:
        room = "!hers:peer.test"
        pdu = at.seal(at.draft("m.room.member", {"membership": "invite"}, ALICE) | {"room_id": room})
        body = {"room_version": "11", "event": pdu, "invite_room_state": []}
        status, answer = await at.ask("PUT", f"{V2}/invite/{seg(room)}/{seg(at.id_of(pdu))}", body)
        assert status == 200
        assert set(answer["event"]["signatures"]) == {"peer.test", "one.test"}
        assert room in (await at.alice.sync())["rooms"]["invite"]
        assert MALLORY in str(await at.alice.sync(full_state="true"))
