# SPDX-License-Identifier: Apache-2.0
"""CVE-2020-26257: a room in the path that is not the event's made malformed events, which stopped
federation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.advisories.kit import ALICE, MALLORY, V1, V2, seg, siege
from tests.rooms.forge import rows_of


@pytest.mark.parametrize("version", ["2", "12"])
async def test_the_room_of_the_path_must_be_the_events(tmp_path: Path, version: str) -> None:
    async with siege(tmp_path, version=version) as at:
        other = await at.alice.create_room(preset="public_chat", room_version=version)
        guest = "@guest:peer.test"
        join = at.member({"membership": "join"}, guest)
        leave = at.member({"membership": "leave"})
        invite = at.event("m.room.member", {"membership": "invite"}, ALICE)
        third_party = {"third_party_invite": {"signed": {"mxid": guest, "token": "t", "signatures": {}}}}
        exchange = at.draft("m.room.member", {"membership": "invite", **third_party}, guest)
        whole = {"room_version": version, "event": invite, "invite_room_state": []}
        attacks: list[tuple[str, Any, Any]] = [
            (f"{V1}/send_join", join, join),
            (f"{V2}/send_join", join, join),
            (f"{V1}/send_leave", leave, leave),
            (f"{V2}/send_leave", leave, leave),
            (f"{V1}/send_knock", join, join),
            (f"{V2}/invite", invite, whole),
        ]
        before = rows_of(at.rooms), outbound(at)
        for prefix, pdu, body in attacks:
            status, answer = await at.ask("PUT", f"{prefix}/{seg(other)}/{seg(at.id_of(pdu))}", body)
            assert status in (400, 403), (prefix, answer)
        status, answer = await at.ask("PUT", f"{V1}/exchange_third_party_invite/{seg(other)}", exchange)
        assert status in (400, 403, 404), answer
        await at.rest()
        assert (rows_of(at.rooms), outbound(at)) == before
        await at.unharmed()


async def test_the_event_id_of_the_path_must_be_the_events(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        leave = at.member({"membership": "leave"})
        status, answer = await at.ask("PUT", f"{V2}/send_leave/{seg(at.room)}/{seg('$' + 'x' * 43)}", leave)
        assert status == 400, answer
        assert at.state()["m.room.member", MALLORY] != at.id_of(leave)
        await at.unharmed()


def outbound(at: Any) -> int:
    return int(at.rooms.parts.db.read.execute("SELECT COUNT(*) FROM outbound").fetchone()[0])
