# SPDX-License-Identifier: Apache-2.0
"""Which rooms the filter of a list lets through."""

from __future__ import annotations

from typing import Any

from tests.sync.sliding.kit import put, rooms
from tests.sync.world import ALICE, BOB, Json, World

ENCRYPTED = [{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
SPACE = {"creation_content": {"type": "m.space"}}


async def passing(world: World, user: str = ALICE, **filters: Any) -> set[str]:
    answer = await world.slide(user, **rooms(limit=0, **filters))
    assert answer["lists"]["all"]["count"] == len(answer["rooms"])
    return set(answer["rooms"])


async def test_rooms_for_two(world: World) -> None:
    room, direct = await world.room(), await world.room()
    await put(world, ALICE, "m.direct", {BOB: [direct, 5], "nonsense": 1})
    assert await passing(world, is_dm=True) == {direct}
    assert await passing(world, is_dm=False) == {room}
    assert await passing(world, is_dm=None) == {room, direct}


async def test_encrypted_rooms(world: World) -> None:
    plain, secret = await world.room(), await world.room(initial_state=ENCRYPTED)
    assert await passing(world, is_encrypted=True) == {secret}
    assert await passing(world, is_encrypted=False) == {plain}
    for room in (plain, secret):
        await world.rooms.invite(ALICE, room, BOB)
    assert await passing(world, BOB, is_encrypted=True) == {secret}, "the invite says so"
    assert await passing(world, BOB, is_encrypted=False) == {plain}
    for room in (plain, secret):
        await world.rooms.join(BOB, room)
        await world.rooms.kick(ALICE, room, BOB)
    assert await passing(world, BOB, is_encrypted=True) == {secret}


async def test_invites(world: World) -> None:
    room, invited = await world.room(BOB), await world.room(preset="private_chat", invite=[BOB])
    assert await passing(world, BOB, is_invite=True) == {invited}
    assert await passing(world, BOB, is_invited=True) == {invited}
    assert await passing(world, BOB, is_invite=False) == {room}


async def test_types_of_rooms(world: World) -> None:
    room, space, odd = (
        await world.room(),
        await world.room(**SPACE),
        await world.room(creation_content={"type": "odd"}),
    )
    assert await passing(world, room_types=["m.space"]) == {space}
    assert await passing(world, room_types=[None, "odd"]) == {room, odd}
    assert await passing(world, not_room_types=["m.space"]) == {room, odd}
    assert await passing(world, not_room_types=[None]) == {space, odd}
    assert await passing(world, room_types=["odd", None], not_room_types=["odd"]) == {room}
    assert await passing(world, room_types=[]) == set()
    await world.rooms.invite(ALICE, space, BOB)
    assert await passing(world, BOB, room_types=["m.space"]) == {space}
    assert await passing(world, BOB, not_room_types=["m.space"]) == set()


async def test_tags(world: World) -> None:
    plain, one, both = await world.room(), await world.room(), await world.room()
    await put(world, ALICE, "m.tag", {"tags": {"a": {}}}, one)
    await put(world, ALICE, "m.tag", {"tags": {"a": {}, "b": {}}}, both)
    await put(world, ALICE, "m.tag", {"tags": "none"}, plain)
    assert await passing(world, tags=["a"]) == {one, both}
    assert await passing(world, tags=["b", "c"]) == {both}
    assert await passing(world, not_tags=["b"]) == {plain, one}
    assert await passing(world, tags=["a"], not_tags=["b"]) == {one}


async def test_rooms_of_a_space(world: World) -> None:
    space, other, inside, outside = (
        await world.room(**SPACE),
        await world.room(BOB, **SPACE),
        await world.room(),
        await world.room(),
    )

    async def child(user: str, parent: str, room: str, content: Json) -> None:
        await world.rooms.send(user, parent, "m.space.child", content, state_key=room)

    await child(ALICE, space, inside, {"via": ["here.test"]})
    await child(ALICE, space, other, {})
    await child(BOB, other, outside, {"via": ["here.test"]})
    assert await passing(world, spaces=[space]) == {inside}
    assert await passing(world, spaces=[other, "!unknown:here.test"]) == set(), "she is not in it"
    await world.rooms.join(ALICE, other)
    assert await passing(world, spaces=[space, other]) == {inside, outside}


async def test_filters_add_up_and_unknown_ones_are_passed_over(world: World) -> None:
    room, direct = await world.room(initial_state=ENCRYPTED), await world.room(initial_state=ENCRYPTED)
    await world.room()
    await put(world, ALICE, "m.direct", {BOB: [direct]})
    assert await passing(world, is_encrypted=True, is_dm=False, room_name_like="x") == {room}
