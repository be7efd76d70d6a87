# SPDX-License-Identifier: Apache-2.0
"""A room of 2,000 members on Synapse is joined, whole and by part of its state first; and one on minihs.

The members are of a third server that has no database: one of the two joins a room that it hosts, and is then
asked by the other.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from unittest import mock

import pytest
import trio

from minihs.testing.events import RoomFactory
from tests.interop.kit.client import Client
from tests.interop.kit.group import Group, running_group
from tests.interop.kit.hosted import HostedRoom
from tests.interop.kit.peer import Peer
from tests.interop.kit.state import wait_for_the_same_state

MEMBERS = 2_000


@dataclass(frozen=True, slots=True)
class Scene:
    anna: Client
    """Of minihs."""
    berta: Client
    """Of Synapse."""
    group: Group
    room: str
    host: str
    """The server that the members are of."""
    is_partial: bool

    @property
    def log(self) -> str:
        return self.group.servers[0].log_file.read_text()


@pytest.fixture(scope="module", params=["false", "true"], ids=["whole", "partial"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Group, bool]]:
    setting = {"MINIHS_FEDERATION_PARTIAL_JOINS": request.param}
    with (
        mock.patch.dict(os.environ, setting),
        running_group(("minihs", "synapse"), tmp_path_factory.mktemp("large")) as group,
    ):
        yield group, request.param == "true"


def large_room(peer: Peer) -> HostedRoom:
    factory = RoomFactory("11", f"@founder:{peer.server_name}", name="large")
    for number in range(MEMBERS - 1):
        factory.join(f"@member{number}:{peer.server_name}", {"displayname": f"Member number {number}"})
    room = HostedRoom(factory)
    peer.host(room)
    return room


@asynccontextmanager
async def at_the_scene(servers: tuple[Group, bool], nursery: trio.Nursery) -> AsyncIterator[Scene]:
    group, is_partial = servers
    peer = Peer(group.servers[0].place.authority)
    await nursery.start(peer.serve)
    room = large_room(peer)
    name = f"user-{uuid.uuid4().hex[:8]}"  # one of digits only is reserved for guests
    anna, berta = [await server.register(name) for server in group.servers]
    try:
        yield Scene(anna, berta, group, room.room_id, peer.server_name, is_partial)
    finally:  # or what fails here fails the next test as well, by its open sockets
        await anna.aclose()
        await berta.aclose()
        await peer.aclose()
        nursery.cancel_scope.cancel()


async def talk(room: str, newcomer: Client, other: Client) -> list[str]:
    """Ids of what they say to each other; and both know all members."""
    said = await newcomer.say(room, "here I am")
    await other.wait_for_id(room, said)
    heard = await other.say(room, "and who are you?")
    await newcomer.wait_for_id(room, heard)
    members = await newcomer.joined_members(room)
    assert len(members) == MEMBERS + 2
    assert members == await other.joined_members(room)
    return [said, heard]


async def test_a_room_of_two_thousand_is_joined_through_synapse(
    servers: tuple[Group, bool], nursery: trio.Nursery
) -> None:
    async with at_the_scene(servers, nursery) as scene:
        anna, berta, room = scene.anna, scene.berta, scene.room
        await berta.join(room, via=[scene.host])
        assert len(await berta.joined_members(room)) == MEMBERS + 1
        await anna.join(room, via=[scene.group.servers[1].server_name])
        texts = await talk(room, anna, berta)
        await wait_for_the_same_state(room, anna, berta)
        assert ("partial=True" in scene.log) == scene.is_partial
        assert ("all members of a room are known" in scene.log) == scene.is_partial
        # What was said meanwhile is still there, and what follows arrives.
        for event_id in [await anna.say(room, "all there now"), *texts]:
            await berta.wait_for_id(room, event_id)


@pytest.mark.parametrize("servers", ["false"], ids=["whole"], indirect=True)
async def test_synapse_joins_one_through_minihs(servers: tuple[Group, bool], nursery: trio.Nursery) -> None:
    async with at_the_scene(servers, nursery) as scene:
        anna, berta, room = scene.anna, scene.berta, scene.room
        await anna.join(room, via=[scene.host])
        await berta.join(room, via=[scene.group.servers[0].server_name])
        await talk(room, berta, anna)
        await wait_for_the_same_state(room, anna, berta)
