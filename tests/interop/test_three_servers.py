# SPDX-License-Identifier: Apache-2.0
"""A third server: whoever lets it in tells the others of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop.conftest import PAIRS
from tests.interop.kit.client import Client
from tests.interop.kit.group import Group, running_group
from tests.interop.kit.state import wait_for_the_same_state


@pytest.fixture(scope="module", params=PAIRS)
def trio_of_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Group]:
    first, second = request.param.split("-")
    with running_group((first, second, second), tmp_path_factory.mktemp("three")) as group:
        yield group


@pytest.fixture
async def people(trio_of_servers: Group) -> AsyncIterator[list[Client]]:
    name = f"anna-{uuid.uuid4().hex[:8]}"  # by digits only Synapse registers nobody
    clients = [await server.register(name) for server in trio_of_servers.servers]
    yield clients
    for client in clients:
        await client.aclose()


async def all_hear_each(people: list[Client], room: str) -> None:
    for speaker in people:
        event_id = await speaker.say(room, f"{speaker.user_id} speaks")
        for listener in people:
            await listener.wait_for_id(room, event_id)


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("owner", [0, 1], ids=["owner-is-first", "owner-is-second"])
async def test_a_join_let_in_by_one_server_is_told_to_the_others(
    trio_of_servers: Group, people: list[Client], owner: int, version: str
) -> None:
    """The third always comes in through the first: once that is the room's home, once a guest there."""
    home, early = people[owner], people[1 - owner]
    late = people[2]
    room = await home.create_room(preset="public_chat", room_version=version)
    await early.join(room, via=[trio_of_servers.servers[owner].server_name])
    await home.wait_for_membership(room, early.user_id, "join")
    # Synapse answers a join before it has the whole state, and lets nobody in until then; this waits for it.
    assert await early.joined_members(room) == {home.user_id, early.user_id}

    await late.join(room, via=[trio_of_servers.servers[0].server_name])

    for listener in (home, early):
        await listener.wait_for_membership(room, late.user_id, "join")
    await all_hear_each(people, room)
    await wait_for_the_same_state(room, home, early)
    await wait_for_the_same_state(room, early, late)
    await late.leave(room)
    for listener in (home, early):
        await listener.wait_for_membership(room, late.user_id, "leave")
