# SPDX-License-Identifier: Apache-2.0
"""After `minihs keys rotate`: what was signed with the old key is believed, what is new is signed anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from minihs.cli.keys import replace_key
from minihs.testing.api import ApiClient
from minihs.testing.servers import Cluster, cluster
from tests.testing.test_servers import until_texts


async def rotated(world: Cluster, client: ApiClient) -> ApiClient:
    server = world["one.test"]
    await world.stop("one.test")
    old, new = replace_key(server.config, server.runtime())
    assert old != new
    await world.start("one.test")
    again = server.client()
    again.user_id, again.device_id, again.token = client.user_id, client.device_id, client.token
    again._txn = client._txn  # transaction ids are not used twice
    return again


@pytest.mark.parametrize("version", ["4", "12"])  # before and after key validity counted
async def test_old_events_are_believed_and_new_ones_too(tmp_path: Path, version: str) -> None:
    async with cluster("one.test", "two.test", "three.test", folder=tmp_path) as world:
        alice, bob = await world["one.test"].user("alice"), await world["two.test"].user("bob")
        room = await alice.create_room(preset="public_chat", room_version=version)
        await bob.join(room, "one.test")
        await alice.send(room, "with the old key")
        await until_texts(bob, room, ["with the old key"])
        await trio.sleep(3600)
        alice = await rotated(world, alice)
        await alice.send(room, "with the new key")
        await until_texts(bob, room, ["with the old key", "with the new key"])
        # A server that never knew the old key judges the whole history by it.
        carol = await world["three.test"].user("carol")
        await carol.join(room, "two.test")
        await until_texts(carol, room, ["with the old key", "with the new key"])
        assert set(await carol.state(room)) == set(await alice.state(room))
        await carol.send(room, "hello")
        await until_texts(alice, room, ["with the old key", "with the new key", "hello"])
