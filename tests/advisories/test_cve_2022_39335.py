# SPDX-License-Identifier: Apache-2.0
"""CVE-2022-39335 and its like (CVE-2021-39163, CVE-2023-43796, CVE-2023-42453, CVE-2024-53867): state,
events, auth chains, devices and summaries were told to servers and users who were not entitled.

One table: every question about a room, by who asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minihs.testing.hostile import ScriptedPeer
from tests.advisories.kit import MALLORY, V1, V2, Siege, seg, siege

SECRET = "the secret of the room"


def questions(room: str, event: str) -> list[tuple[str, str, Any]]:
    r, e = seg(room), seg(event)
    return [
        ("GET", f"{V1}/event/{e}", None),
        ("GET", f"{V1}/state/{r}?event_id={e}", None),
        ("GET", f"{V1}/state_ids/{r}?event_id={e}", None),
        ("GET", f"{V1}/event_auth/{r}/{e}", None),
        ("GET", f"{V1}/backfill/{r}?v={e}&limit=10", None),
        ("GET", f"{V1}/timestamp_to_event/{r}?ts=0&dir=f", None),
        ("POST", f"{V1}/get_missing_events/{r}", {"earliest_events": [], "latest_events": [event]}),
        ("GET", f"{V1}/hierarchy/{r}", None),
        ("GET", f"{V1}/make_join/{r}/{seg('@spy:spy.test')}?ver=12", None),
        ("GET", f"{V1}/make_knock/{r}/{seg('@spy:spy.test')}?ver=12", None),
        ("GET", f"/_matrix/federation/unstable/rooms/{r}/complexity", None),
        ("GET", f"/_matrix/federation/unstable/org.matrix.msc4370/extremities/{r}", None),
        ("GET", f"{V1}/user/devices/{seg('@alice:one.test')}", None),
    ]


@pytest.mark.parametrize("visibility", ["invited", "joined", "shared", "world_readable"])
async def test_a_server_that_is_not_in_the_room_is_told_nothing(tmp_path: Path, visibility: str) -> None:
    async with siege(tmp_path) as at:
        spy = ScriptedPeer(at.world.internet, "spy.test", clock=at.world.clock)
        state = [
            {
                "type": "m.room.history_visibility",
                "state_key": "",
                "content": {"history_visibility": visibility},
            }
        ]
        room = await at.alice.create_room(preset="private_chat", topic=SECRET, initial_state=state)
        event = await at.alice.send(room, SECRET)
        for method, uri, body in questions(room, event)[:-1]:
            status, answer = await spy.request(method, "one.test", uri, body)
            open_to_all = visibility == "world_readable" and ("hierarchy" in uri or "complexity" in uri)
            assert open_to_all or status in (403, 404), (uri, answer)
            assert open_to_all or SECRET not in str(answer), uri
        status, answer = await spy.request("GET", "one.test", questions(room, event)[-1][1])
        assert status in (403, 404) or not answer["devices"] or "keys" in str(answer)


async def test_a_server_that_has_left_is_told_nothing_new(tmp_path: Path) -> None:
    state = [
        {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    ]
    async with siege(tmp_path, room={"initial_state": state}) as at:
        leave = at.member({"membership": "leave"})
        status, _ = await at.ask("PUT", f"{V2}/send_leave/{seg(at.room)}/{seg(at.id_of(leave))}", leave)
        assert status == 200
        event = await at.alice.send(at.room, SECRET)
        for method, uri, body in questions(at.room, event):
            _, answer = await at.ask(method, uri, body)
            assert SECRET not in str(answer), uri
        assert SECRET not in str([request.body for request in at.peer.requests])


async def test_what_one_may_not_see_comes_redacted(tmp_path: Path) -> None:
    """Written before Mallory was in, in a room that shows only what comes after."""
    async with siege(tmp_path) as at:
        rules = [
            {
                "type": "m.room.history_visibility",
                "state_key": "",
                "content": {"history_visibility": "joined"},
            }
        ]
        room = await at.alice.create_room(preset="public_chat", initial_state=rules)
        before = await at.alice.send(room, SECRET)
        await at.enter(room)
        await at.alice.send(room, "seen")
        for method, uri, body in questions(room, before):
            _, answer = await at.ask(method, uri, body)
            assert SECRET not in str(answer), uri
        newest = at.forger.tips[0]
        status, answer = await at.ask("GET", f"{V1}/backfill/{seg(room)}?v={seg(newest)}&limit=100")
        assert status == 200
        assert "seen" in str(answer)
        assert SECRET not in str(answer)


async def test_our_own_users_are_held_to_the_same(tmp_path: Path) -> None:
    async with siege(tmp_path) as at:
        bob = await at.world["one.test"].user("bob")
        room = await at.alice.create_room(preset="private_chat", topic=SECRET)
        event = await at.alice.send(room, SECRET)
        r, e = seg(room), seg(event)
        for path in (
            f"/rooms/{r}/event/{e}", f"/rooms/{r}/state", f"/rooms/{r}/state/m.room.topic/",
            f"/rooms/{r}/members",
            f"/rooms/{r}/messages?dir=b", f"/rooms/{r}/context/{e}", f"/rooms/{r}/joined_members",
            f"/_matrix/client/v1/rooms/{r}/relations/{e}", f"/_matrix/client/v1/rooms/{r}/hierarchy",
            f"/_matrix/client/v1/rooms/{r}/threads", f"/_matrix/client/v1/room_summary/{r}",
            f"/_matrix/client/v1/rooms/{r}/timestamp_to_event?ts=0&dir=f", f"/rooms/{r}/aliases", "/sync",
            f"/rooms/{r}/initialSync",
        ):  # fmt: skip
            status, answer = await bob.ask("GET", path)
            assert path == "/sync" or status in (403, 404), (path, answer)
            assert SECRET not in str(answer), path
        search = {"search_categories": {"room_events": {"search_term": "secret"}}}
        assert SECRET not in str((await bob.ask("POST", "/search", search))[1])
        # After leaving, what comes later is not for him.
        await at.alice.invite(room, bob.user_id)
        await bob.join(room)
        await bob.leave(room)
        await at.alice.set_state(room, "m.room.topic", {"topic": "later " + SECRET})
        later = await at.alice.send(room, "later " + SECRET)
        for path in (
            f"/rooms/{r}/event/{seg(later)}",
            f"/rooms/{r}/state",
            f"/rooms/{r}/messages?dir=b",
            "/sync",
        ):
            _, answer = await bob.ask("GET", path)
            assert "later" not in str(answer), path
        await room_is_unharmed(at)


async def room_is_unharmed(at: Siege) -> None:
    assert MALLORY in str(await at.alice.get(f"/rooms/{at.room}/joined_members"))
    await at.unharmed()
