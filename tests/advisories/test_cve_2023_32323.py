# SPDX-License-Identifier: Apache-2.0
"""CVE-2023-32323: an invite with oversized room state, made by a local user, disabled federation to the
invited server."""

from __future__ import annotations

from pathlib import Path

import trio

from minihs.matrix.signatures import sign_event
from minihs.testing.hostile import Received
from tests.advisories.kit import V1, V2, JsonObject, siege


async def test_an_invite_is_of_a_size_that_can_be_sent(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        invites: list[Received] = []
        arrived: list[str] = []

        def sign(received: Received) -> JsonObject:
            invites.append(received)
            return {"event": sign_event(received.json["event"], at.forger.version, "peer.test", at.peer.key)}

        def take(received: Received) -> JsonObject:
            assert len(received.body) < 6 * 1024 * 1024
            arrived.extend(pdu["content"].get("body", "") for pdu in received.json["pdus"])
            return {"pdus": {}}

        at.peer.on("PUT", f"{V2}/invite/", sign)
        at.peer.on("PUT", f"{V1}/send/", take)
        room = await at.alice.create_room(preset="private_chat")
        for type, content in {
            "m.room.name": {"name": "x" * 60_000},
            "m.room.topic": {"topic": "x" * 60_000},
            "m.room.avatar": {"url": "x" * 60_000},
            "m.room.canonical_alias": {"x": "x" * 60_000},
            "m.room.encryption": {"algorithm": "x" * 60_000},
        }.items():
            await at.alice.set_state(room, type, content)
        for user in ("@one:peer.test", "@two:peer.test"):
            await at.alice.invite(room, user)
        assert len(invites) == 2
        assert all(len(received.body) < 1024 * 1024 for received in invites)
        await at.alice.send(at.room, "it still goes out")
        await trio.sleep(60)
        assert "it still goes out" in arrived


async def test_what_is_too_large_is_refused_when_it_is_made(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        huge = "x" * 66_000
        devices = {"@mallory:peer.test": {"D": {"body": huge}}}
        for method, path, body in [
            ("PUT", f"/rooms/{at.room}/send/m.room.message/t1", {"body": huge}),
            ("PUT", f"/rooms/{at.room}/state/x.y/", {"body": huge}),
            ("PUT", f"/rooms/{at.room}/state/x.y/{'k' * 256}", {}),
            ("POST", f"/rooms/{at.room}/invite", {"user_id": "@x:peer.test", "reason": huge}),
            ("POST", f"/rooms/{at.room}/kick", {"user_id": "@mallory:peer.test", "reason": huge}),
            ("PUT", "/sendToDevice/m.room.encrypted/t2", {"messages": devices}),
            ("PUT", f"/profile/{at.alice.user_id}/displayname", {"displayname": huge}),
            ("PUT", f"/presence/{at.alice.user_id}/status", {"presence": "online", "status_msg": huge}),
        ]:
            status, answer = await at.alice.ask(method, path, body)
            assert status in (400, 413), (path, answer)
        await at.unharmed()
