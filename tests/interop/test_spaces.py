# SPDX-License-Identifier: Apache-2.0
"""Spaces and public rooms of another server."""

from __future__ import annotations

import uuid

from tests.interop.conftest import Stage
from tests.interop.kit.client import V3, segment

V1 = "/_matrix/client/v1"


# -- spaces and directories ----------------------------------------------------------------------------


async def test_a_space_elsewhere_is_walked(stage: Stage) -> None:
    server = stage.home.server_name
    space = await stage.host.create_room(
        preset="public_chat", room_version="11", name="Space", creation_content={"type": "m.space"}
    )
    inner = await stage.host.create_room(
        preset="public_chat", room_version="11", name="Inner", creation_content={"type": "m.space"}
    )
    leaf, _ = await stage.public_room("11", name="Leaf")
    secret = await stage.host.create_room(preset="private_chat", room_version="11", name="Secret")
    for parent, child in ((space, inner), (inner, leaf), (space, secret)):
        await stage.host.set_state(parent, "m.space.child", {"via": [server]}, child)
    await stage.guest.join(space, via=[server])

    found = await stage.guest.call("GET", f"{V1}/rooms/{segment(space)}/hierarchy")

    names = {room["room_id"]: room.get("name") for room in found["rooms"]}
    assert names == {space: "Space", inner: "Inner", leaf: "Leaf"}


async def test_the_public_rooms_elsewhere_are_listed_and_searched(stage: Stage) -> None:
    name = f"Listed {uuid.uuid4().hex}"
    room, alias = await stage.public_room("11", name=name, visibility="public", topic="For all")
    await stage.public_room("11", name=f"Hidden {uuid.uuid4().hex}")

    server = {"server": stage.home.server_name}
    found = await stage.guest.call(
        "POST", f"{V3}/publicRooms", {"filter": {"generic_search_term": name}}, server
    )
    every = await stage.guest.call("GET", f"{V3}/publicRooms", None, {**server, "limit": "500"})

    (listed,) = found["chunk"]
    assert (listed["room_id"], listed["canonical_alias"], listed["num_joined_members"]) == (room, alias, 1)
    assert room in {each["room_id"] for each in every["chunk"]}
    assert not any(str(each.get("name")).startswith("Hidden") for each in every["chunk"])
