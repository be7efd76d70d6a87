# SPDX-License-Identifier: Apache-2.0
"""What a client sees of rooms that live on other servers too: whole servers, on an internet in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from minihs.testing.api import ApiClient, ApiError
from minihs.testing.clock import run_virtual
from minihs.testing.servers import Cluster, cluster
from tests.sync.world import bodies, state_of

virtual = pytest.mark.trio(run=run_virtual)
"""On each test: pytest-trio's own marker would hide that of a module."""


async def alice_and_bob(world: Cluster) -> tuple[ApiClient, ApiClient]:
    return await world["one.test"].user("alice"), await world["two.test"].user("bob")


async def synced_until(client: ApiClient, section: str, room: str, wanted: Any, **query: Any) -> Any:
    """Poll until the room's entry in a section satisfies `wanted`."""
    for _ in range(30):
        answer = await client.sync(timeout_ms=10_000, **query)
        entry = answer["rooms"][section].get(room)
        if entry is not None and wanted(entry):
            return entry
    raise AssertionError(f"{client} did not see it")


@virtual
@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
async def test_an_invite_its_stripped_state_and_the_room_once_joined(tmp_path: Path, version: str) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await alice_and_bob(world)
        room = await alice.create_room(preset="private_chat", name="Den", room_version=version)
        await alice.send(room, "before bob came")
        await bob.sync()
        await alice.invite(room, bob.user_id)
        invite = await synced_until(bob, "invite", room, lambda entry: True)
        state = {(event["type"], event["state_key"]): event for event in invite["invite_state"]["events"]}
        assert state["m.room.member", bob.user_id]["content"]["membership"] == "invite"
        assert state["m.room.name", ""]["content"] == {"name": "Den"}
        assert ("m.room.create", "") in state
        assert all(event.keys() == {"type", "state_key", "sender", "content"} for event in state.values())
        await bob.join(room)
        joined = await synced_until(bob, "join", room, lambda entry: entry["timeline"]["events"])
        whole = state_of(joined["state"])
        assert {("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", alice.user_id)} <= set(
            whole
        )
        assert joined["timeline"]["limited"] is True
        assert joined["summary"]["m.joined_member_count"] == 2
        # Into the time before the join, through the other server.
        found = await bob.get(
            f"/rooms/{quote(room)}/messages",
            dir="b",
            limit=100,
            **{"from": joined["timeline"]["prev_batch"]},
        )
        assert "before bob came" in bodies(found["chunk"])
        assert found["chunk"][-1]["type"] == "m.room.create"
        assert "end" not in found


@virtual
async def test_a_declined_invite_goes_to_the_left_rooms(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await alice_and_bob(world)
        room = await alice.create_room(preset="private_chat")
        await alice.invite(room, bob.user_id)
        await synced_until(bob, "invite", room, lambda entry: True)
        await bob.leave(room)
        left = await synced_until(bob, "leave", room, lambda entry: True)
        assert left["state"]["events"] == []
        assert [event["content"]["membership"] for event in left["timeline"]["events"]] == ["leave"]
        with pytest.raises(ApiError) as refusal:
            await bob.state(room)
        assert refusal.value.status == 403


@virtual
async def test_typing_and_receipts_cross_servers_and_private_receipts_do_not(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await alice_and_bob(world)
        room = await alice.create_room(preset="public_chat")
        await bob.join(room, "one.test")
        event_id = await alice.send(room, "hello")
        await synced_until(bob, "join", room, lambda entry: "hello" in bodies(entry["timeline"]))
        await alice.sync()

        def has(kind: str) -> Any:
            return lambda entry: any(event["type"] == kind for event in entry["ephemeral"]["events"])

        await bob.put(f"/rooms/{quote(room)}/typing/{quote(bob.user_id)}", {"typing": True, "timeout": 5000})
        entry = await synced_until(alice, "join", room, has("m.typing"))
        assert entry["ephemeral"]["events"] == [{"type": "m.typing", "content": {"user_ids": [bob.user_id]}}]
        await bob.post(f"/rooms/{quote(room)}/receipt/m.read.private/{quote(event_id)}")
        await bob.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(event_id)}")
        entry = await synced_until(alice, "join", room, has("m.receipt"))
        [receipt] = [event for event in entry["ephemeral"]["events"] if event["type"] == "m.receipt"]
        assert receipt["content"][event_id].keys() == {"m.read"}
        assert receipt["content"][event_id]["m.read"].keys() == {bob.user_id}


@virtual
async def test_what_was_missed_while_away_can_be_read_from_the_gap(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await alice_and_bob(world)
        room = await alice.create_room(preset="public_chat")
        await bob.join(room, "one.test")
        await alice.send(room, "start")
        await synced_until(bob, "join", room, lambda entry: "start" in bodies(entry["timeline"]))
        await world.stop("two.test")
        texts = [f"message {number}" for number in range(40)]
        for text in texts:
            await alice.send(room, text)
        await world.start("two.test")
        await trio.sleep(4 * 3600)
        since = bob.since
        entry = (await bob.sync())["rooms"]["join"][room]
        seen = bodies(entry["timeline"])
        assert seen == texts[-len(seen) :]
        assert entry["timeline"]["limited"] is True
        before = await bob.get(
            f"/rooms/{quote(room)}/messages",
            dir="b",
            limit=100,
            to=since,
            **{"from": entry["timeline"]["prev_batch"]},
        )
        older = bodies(before["chunk"])[::-1]
        assert (older + seen)[-len(texts) :] == texts


@virtual
async def test_leaving_joining_again_and_the_state_in_between(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob = await alice_and_bob(world)
        room = await alice.create_room(preset="public_chat", name="old")
        await bob.join(room, "one.test")
        await bob.sync()
        await bob.leave(room)
        left = await synced_until(bob, "leave", room, lambda entry: True)
        assert left["timeline"]["events"][-1]["content"]["membership"] == "leave"
        await trio.sleep(1)  # or both names are of one millisecond, beside each other, and either may win
        await alice.set_state(room, "m.room.name", {"name": "new"})
        assert (await bob.state(room))["m.room.name", ""]["content"] == {"name": "old"}
        await bob.join(room, "one.test")
        joined = await synced_until(bob, "join", room, lambda entry: True)
        state = state_of(joined["state"])
        assert state["m.room.name", ""]["content"] == {"name": "new"}
        own = [event for event in joined["timeline"]["events"] if event.get("state_key") == bob.user_id]
        assert own[-1]["content"]["membership"] == "join"
