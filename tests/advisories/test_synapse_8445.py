# SPDX-License-Identifier: Apache-2.0
"""Synapse #8445, #8220: a display name that is no string, and the like, broke what clients are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.advisories.kit import ALICE, MALLORY, V1, seg, siege

ODD: list[Any] = [None, 5, True, [], ["x"], {}, {"x": "y"}, "\0", "", "x" * 20_000]


@pytest.mark.parametrize("version", ["1", "12"])
async def test_content_of_the_wrong_type_breaks_no_view(tmp_path: Path, version: str) -> None:
    levels: dict[str, Any] = {"users": {MALLORY: 90}, "events": {}}
    if version == "1":
        levels["users"][ALICE] = 100
    async with siege(tmp_path, version=version, room={"power_level_content_override": levels}) as at:
        await at.alice.put(f"/directory/list/room/{at.room}", {"visibility": "public"})
        for value in ODD:
            state = [
                at.member({"membership": "join", "displayname": value, "avatar_url": value}),
                at.event("m.room.name", {"name": value}, ""),
                at.event("m.room.topic", {"topic": value, "m.topic": value}, ""),
                at.event("m.room.avatar", {"url": value}, ""),
                at.event("m.room.canonical_alias", {"alias": value, "alt_aliases": value}, ""),
                at.event("m.room.encryption", {"algorithm": value}, ""),
                at.event("m.room.guest_access", {"guest_access": value}, ""),
                at.event("m.room.history_visibility", {"history_visibility": value}, ""),
                at.event("m.space.child", {"via": value, "order": value, "suggested": value}, "!x:peer.test"),
                at.event("m.room.tombstone", {"replacement_room": value, "body": value}, ""),
                at.event("m.room.pinned_events", {"pinned": value}, ""),
            ]
            messages = [
                at.event(
                    content={"body": value, "msgtype": value, "m.mentions": value, "formatted_body": value}
                ),
                at.event(
                    "m.reaction", {"m.relates_to": {"rel_type": value, "event_id": value, "key": value}}
                ),
                at.event(content={"body": "x", "m.relates_to": value, "m.new_content": value}),
            ]
            await at.send(*state, *messages)
            room = seg(at.room)
            for path in (
                "/sync?full_state=true", f"/rooms/{room}/messages?dir=b", f"/rooms/{room}/members",
                f"/rooms/{room}/joined_members", f"/rooms/{room}/state", "/publicRooms", "/notifications",
                f"/_matrix/client/v1/rooms/{room}/hierarchy",
                f"/rooms/{room}/context/{seg(at.forger.tips[0])}",
                f"/_matrix/client/v1/room_summary/{room}", f"/rooms/{room}/initialSync",
            ):  # fmt: skip
                status, answer = await at.alice.ask("GET", path)
                assert status in (200, 404), (path, answer)
                assert status == 200 or answer["errcode"] in ("M_UNRECOGNIZED", "M_NOT_FOUND"), path
            search = {"search_categories": {"room_events": {"search_term": "hello"}}}
            assert (await at.alice.ask("POST", "/search", search))[0] == 200
            users = await at.alice.post("/user_directory/search", {"search_term": "mallory"})
            assert "results" in users
            status, answer = await at.ask("GET", f"{V1}/publicRooms")
            assert status == 200
            assert all(isinstance(chunk.get("name", ""), str) for chunk in answer["chunk"])
        await at.unharmed()
