# SPDX-License-Identifier: Apache-2.0
"""Whole servers talking to each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.testing.api import ApiClient
from minihs.testing.servers import Cluster, cluster


async def until_texts(
    client: ApiClient, room_id: str, texts: list[str] | set[str], *, within: float = 600.0
) -> None:
    """Wait until a client reads exactly these messages, in this order if they are a list."""
    seen: list[str] = []
    with trio.move_on_after(within):
        while True:
            seen = await client.texts(room_id)
            if len(seen) == len(texts) and (seen == texts or set(seen) == texts):
                return
            await trio.sleep(1)
    raise AssertionError(f"{client} reads {seen} instead of {texts}")


@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
async def test_two_servers_talk_in_one_room(tmp_path: Path, version: str) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path, latency=0.02) as world:
        alice = await world["one.test"].user("alice")
        bob = await world["two.test"].user("bob")
        room_id = await alice.create_room(preset="public_chat", room_version=version)
        assert await bob.join(room_id, "one.test") == room_id
        await alice.send(room_id, "hello bob")
        await until_texts(bob, room_id, ["hello bob"])
        await bob.send(room_id, "hello alice")
        await until_texts(alice, room_id, ["hello bob", "hello alice"])
        assert set(await alice.state(room_id)) == set(await bob.state(room_id))


async def join_both(world: Cluster) -> tuple[ApiClient, ApiClient, str]:
    alice = await world["one.test"].user("alice")
    bob = await world["two.test"].user("bob")
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id, "one.test")
    await alice.send(room_id, "first")
    await until_texts(bob, room_id, ["first"])
    return alice, bob, room_id


async def test_what_was_said_while_a_server_was_down_arrives_when_it_is_back(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room_id = await join_both(world)
        await world.stop("two.test")
        texts = ["first", *(f"message {number}" for number in range(30))]
        for text in texts[1:]:
            await alice.send(room_id, text)
        await trio.sleep(3 * 3600)
        await world.start("two.test")
        await until_texts(bob, room_id, texts, within=8 * 3600)


async def test_what_was_to_be_sent_when_a_server_went_down_is_sent_when_it_is_back(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", folder=tmp_path) as world:
        alice, bob, room_id = await join_both(world)
        await world.stop("two.test")
        texts = ["first", *(f"message {number}" for number in range(30))]
        for text in texts[1:]:
            await alice.send(room_id, text)
        await world.stop("one.test")
        await world.start("two.test")
        await trio.sleep(60)
        await world.start("one.test")
        await until_texts(bob, room_id, texts, within=24 * 3600)


async def test_both_sides_of_a_partition_agree_after_it(tmp_path: Path) -> None:
    async with cluster("one.test", "two.test", "three.test", folder=tmp_path) as world:
        alice, bob, room_id = await join_both(world)
        carol = await world["three.test"].user("carol")
        await carol.join(room_id, "two.test")
        await until_texts(carol, room_id, ["first"])
        world.partition(("one.test",), ("two.test", "three.test"))
        await alice.send(room_id, "on one side")
        await bob.send(room_id, "on the other")
        await until_texts(carol, room_id, ["first", "on the other"])
        await trio.sleep(600)
        world.heal()
        for client in (alice, bob, carol):
            await until_texts(client, room_id, {"first", "on one side", "on the other"}, within=24 * 3600)


async def test_a_day_passes_in_a_moment(tmp_path: Path) -> None:
    async with cluster("one.test", folder=tmp_path) as world:
        before = world.clock.now_ms()
        await trio.sleep(24 * 3600)
        assert world.clock.now_ms() - before == 24 * 3600 * 1000
