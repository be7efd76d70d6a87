# SPDX-License-Identifier: Apache-2.0
"""Presence between servers: only among those who share a direct room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from minihs.testing.api import ApiClient
from minihs.testing.servers import Cluster, cluster
from minihs.users import presence
from tests.together.kit import MALLORY, scene, seg, tell, with_mallory
from tests.together.test_catch_up import watch


async def shown(client: ApiClient, user_id: str) -> list[str]:
    """What the next /sync tells of a user's presence."""
    answer = await client.sync(set_presence="offline")
    return [
        event["content"]["presence"] for event in answer["presence"]["events"] if event["sender"] == user_id
    ]


async def state_of(client: ApiClient, user_id: str) -> Any:
    return (await client.get(f"/presence/{seg(user_id)}/status"))["presence"]


async def two(world: Cluster, **request: Any) -> tuple[ApiClient, ApiClient, str]:
    alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
    room = await alice.create_room(preset="public_chat", **request)
    await bob.join(room, "one.test")
    await trio.sleep(5)
    await bob.sync(set_presence="offline")
    return alice, bob, room


async def test_who_shares_a_room_of_two_sees_the_other_come_and_go(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        await alice.put(
            f"/presence/{seg(alice.user_id)}/status", {"presence": "online", "status_msg": "at work"}
        )
        await trio.sleep(5)
        assert await shown(bob, alice.user_id) == ["online"]
        seen = await bob.get(f"/presence/{seg(alice.user_id)}/status")
        assert (seen["status_msg"], seen["currently_active"]) == ("at work", True)
        assert await shown(bob, alice.user_id) == []
        # No sign of life: first away, then gone.
        await trio.sleep(6 * 60)
        assert await shown(bob, alice.user_id) == ["unavailable"]
        await trio.sleep(40 * 60)
        assert await shown(bob, alice.user_id) == ["offline"]


async def test_who_waits_is_woken(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.sync)
            before = trio.current_time()
            answer = await bob.sync(30_000, set_presence="offline")
            assert trio.current_time() - before < 20
        assert [event["sender"] for event in answer["presence"]["events"]] == [alice.user_id]


async def test_in_a_room_of_many_nobody_is_told(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        carol = await world["one.test"].user("carol")
        await carol.join(room)
        await trio.sleep(5)
        seen = watch(world, "two.test")
        await alice.sync()
        await alice.send(room, "that says enough")
        await trio.sleep(5)
        edus = [edu["edu_type"] for _, body in seen for edu in body.get("edus", [])]
        assert seen
        assert "m.presence" not in edus
        assert await shown(bob, alice.user_id) == []
        assert await state_of(bob, alice.user_id) == "offline"


async def test_a_room_that_is_marked_as_direct_counts(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room = await two(world)
        carol = await world["one.test"].user("carol")
        await carol.join(room)
        for client, other in ((alice, bob), (bob, alice)):
            path = f"/user/{seg(client.user_id)}/account_data/m.direct"
            await client.put(path, {other.user_id: [room]})
        await alice.sync()
        await trio.sleep(5)
        assert await shown(bob, alice.user_id) == ["online"]


async def test_who_stays_online_is_not_forgotten(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, _ = await two(world)
        for _ in range(50):
            await alice.sync()
            await trio.sleep(120)
        assert await shown(bob, alice.user_id) == ["online"]
        assert await state_of(bob, alice.user_id) == "online"


def pushed(user_id: str = MALLORY, **changes: Any) -> tuple[str, Any]:
    entry = {"user_id": user_id, "presence": "online", "last_active_ago": 5, **changes}
    return "m.presence", {"push": [entry]}


async def test_only_what_a_server_says_of_its_own_users_counts(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await with_mallory(at)
        await at.alice.sync(set_presence="offline")
        await tell(
            at,
            "bad",
            pushed("@alice:one.test"),
            pushed(presence="dancing"),
            pushed(presence=None),
            ("m.presence", {"push": 5}),
            ("m.presence", {"push": [None, 5, {}]}),
        )
        assert (await at.alice.sync(set_presence="offline"))["presence"]["events"] == []
        await tell(at, "idle", pushed(last_active_ago=60_000, status_msg="away", currently_active=True))
        (event,) = (await at.alice.sync(set_presence="offline"))["presence"]["events"]
        assert event["content"] == {
            "presence": "online",
            "last_active_ago": event["content"]["last_active_ago"],
            "status_msg": "away",
            "currently_active": True,
        }
        assert 60_000 <= event["content"]["last_active_ago"] < 90_000
        await tell(at, "odd", pushed(last_active_ago="long", status_msg=5, currently_active=7))
        (event,) = (await at.alice.sync(set_presence="offline"))["presence"]["events"]
        assert event["sender"] == MALLORY
        assert event["content"] == {
            "presence": "online",
            "last_active_ago": event["content"]["last_active_ago"],
            "currently_active": False,
        }


async def test_strangers_are_not_remembered(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        await with_mallory(at)
        many = [pushed(f"@stranger{number}:peer.test") for number in range(100)]
        await tell(at, "many", *many)
        known = at.world["one.test"].server.services.users.presence
        assert [user for user in known._users if user.endswith("peer.test")] == []


async def test_the_remembered_are_bounded(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(presence, "MAX_REMOTE", 3)
    async with scene(tmp_path) as at:
        known = at.world["one.test"].server.services.users.presence
        monkeypatch.setattr(known, "_local_contacts", lambda user_id: ["@alice:one.test"])
        for number in range(6):
            await tell(at, f"t{number}", pushed(f"@guest{number}:peer.test"))
        remote = [user for user in known._users if user.endswith("peer.test")]
        assert remote == [f"@guest{number}:peer.test" for number in (3, 4, 5)]
