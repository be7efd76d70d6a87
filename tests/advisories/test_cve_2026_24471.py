# SPDX-License-Identifier: Apache-2.0
"""CVE-2026-24471: whoever asked a hostile server for a template to join, leave or knock with signed what that
server wanted signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import canonical
from minihs.matrix.signatures import SigningKey
from minihs.testing.hostile import Received
from tests.advisories.kit import ALICE, MALLORY, V1, V2, JsonObject, seg, siege

ROOM = "!" + "r" * 43

EVIL: list[JsonObject] = [
    {"type": "m.room.power_levels", "state_key": "", "content": {"users": {MALLORY: 100}}},
    {"type": "m.room.message", "content": {"body": "I never said that"}},
    {"sender": "@other:one.test", "state_key": "@other:one.test"},
    {"sender": MALLORY, "state_key": MALLORY},
    {"state_key": MALLORY},
    {"room_id": "!another:one.test"},
    {"content": {"membership": "ban"}},
    {"content": {"membership": ["join"]}},
    {"content": {"membership": "join", "displayname": "a fool", "join_authorised_via_users_server": 5}},
    {"content": None},
    {"prev_events": [f"$x{n}" for n in range(21)]},
    {"auth_events": [{"a": 1}]},
    {"depth": 2**70, "origin_server_ts": 1, "unsigned": {"x": 1}, "x.y": "z", "redacts": "$x"},
]


@pytest.mark.parametrize("verb", ["join", "leave", "knock"])
async def test_we_sign_our_own_member_event_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    async with siege(tmp_path) as at:
        ours = at.world["one.test"].server.services.signing_key
        signed: list[JsonObject] = []
        honest = SigningKey.sign

        def sign(self: SigningKey, message: bytes) -> bytes:
            if self is ours:
                signed.append(canonical.loads(message))
            return honest(self, message)

        monkeypatch.setattr(SigningKey, "sign", sign)
        if verb == "leave":
            invite = at.draft("m.room.member", {"membership": "invite"}, ALICE) | {"room_id": ROOM}
            invite = at.seal({**invite, "prev_events": ["$a"], "auth_events": ["$b"]})
            uri = f"{V2}/invite/{seg(ROOM)}/{seg(at.id_of(invite))}"
            body = {"room_version": "12", "event": invite, "invite_room_state": []}
            assert (await at.ask("PUT", uri, body))[0] == 200
        good = {
            "type": "m.room.member",
            "room_id": ROOM,
            "sender": ALICE,
            "state_key": ALICE,
            "content": {"membership": verb},
            "prev_events": ["$" + "p" * 43],
            "auth_events": ["$" + "a" * 43],
            "depth": 5,
            "origin_server_ts": 0,
        }

        def refuse(_: Received) -> Any:
            return {"state": [], "auth_chain": [], "event": {}}

        for version in ("v1", "v2"):
            at.peer.on("PUT", f"/_matrix/federation/{version}/send_{verb}/", refuse)
        for change in EVIL:
            signed.clear()
            at.peer.on("GET", f"{V1}/make_{verb}/", {"room_version": "12", "event": {**good, **change}})
            if verb == "leave":
                await at.alice.ask("POST", f"/rooms/{seg(ROOM)}/leave", {})
            else:
                await at.alice.ask("POST", f"/{verb}/{seg(ROOM)}?server_name=peer.test", {})
            for event in signed:
                if "uri" in event:
                    continue  # a request, which says of itself that it is one
                assert (event["type"], event["sender"], event["state_key"]) == ("m.room.member", ALICE, ALICE)
                assert (event["room_id"], event["content"]["membership"]) == (ROOM, verb)
                assert event["origin_server_ts"] != 1
                assert event["content"].get("displayname") != "a fool"
                assert not event.keys() & {"redacts", "x.y", "unsigned"}
        await at.unharmed()
