# SPDX-License-Identifier: Apache-2.0
"""Restricted joins: through a resident that can vouch, whichever of them that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.matrix.errors import MatrixError
from minihs.rooms.service import Rooms
from tests.rooms.world import World, membership_of, state_of, worlds

ALICE, BOB, CAROL, CASS = "@alice:a.test", "@bob:b.test", "@carol:c.test", "@cass:c.test"
RULES = [("restricted", "11"), ("knock_restricted", "11"), ("restricted", "12"), ("restricted", "8")]
every_rule = pytest.mark.parametrize(("rule", "version"), RULES)


async def hall_and_room(a: Rooms, rule: str, version: str) -> tuple[str, str]:
    """A public hall, and a room that is open to who is in the hall."""
    hall = await a.create(ALICE, {"preset": "public_chat"})
    room = await a.create(ALICE, {"preset": "private_chat", "room_version": version})
    # Only moderators may invite, and so vouch.
    levels = a.parts.graph.event(state_of(a, room)["m.room.power_levels", ""])
    assert levels is not None
    await a.send(ALICE, room, "m.room.power_levels", {**levels.content, "invite": 50}, state_key="")
    allow = [{"type": "m.room_membership", "room_id": hall}]
    await a.send(ALICE, room, "m.room.join_rules", {"join_rule": rule, "allow": allow}, state_key="")
    return hall, room


async def with_carol(world: World, rule: str, version: str) -> tuple[str, str]:
    """c.test is in the room, but nobody there may invite."""
    a, c = world.servers["a.test"], world.servers["c.test"]
    hall, room = await hall_and_room(a, rule, version)
    await a.invite(ALICE, room, CAROL)
    await c.join(CAROL, room, via=["a.test"])
    await world.deliver()
    return hall, room


@every_rule
async def test_who_is_in_the_allowed_room_may_join(tmp_path: Path, rule: str, version: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        hall, room = await hall_and_room(a, rule, version)
        with pytest.raises(MatrixError) as refused:
            await b.join(BOB, room, via=["a.test"])
        assert refused.value.errcode == "M_FORBIDDEN"
        await b.join(BOB, hall, via=["a.test"])
        await world.deliver()
        await b.join(BOB, room, via=["a.test"])
        await world.deliver()
        event = a.parts.graph.event(state_of(a, room)["m.room.member", BOB])
        assert event is not None
        assert event.content["join_authorised_via_users_server"] == ALICE
        assert set(event.json["signatures"]) == {"a.test", "b.test"}
        assert state_of(a, room) == state_of(b, room)


@every_rule
async def test_a_resident_that_can_not_vouch_is_passed_over(tmp_path: Path, rule: str, version: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        hall, room = await with_carol(world, rule, version)
        b, c = world.servers["b.test"], world.servers["c.test"]
        await b.join(BOB, hall, via=["a.test"])
        await c.join(CAROL, hall, via=["a.test"])
        await world.deliver()
        await b.join(BOB, room, via=["c.test", "a.test"])
        await world.deliver()
        assert ("b.test", "c.test", "make_join") in world.asked
        for server in world.servers.values():
            assert membership_of(server, room, BOB) == "join"


@every_rule
async def test_a_user_of_a_resident_without_power_joins_through_another(
    tmp_path: Path, rule: str, version: str
) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        hall, room = await with_carol(world, rule, version)
        a, c = world.servers["a.test"], world.servers["c.test"]
        await c.join(CASS, hall, via=["a.test"])
        await world.deliver()
        said = await a.send(ALICE, room, "m.room.message", {"body": "c does not have this yet"})
        await c.join(CASS, room)
        assert membership_of(c, room, CASS) == "join"
        assert c.parts.graph.has(said)
        await world.deliver()
        assert membership_of(a, room, CASS) == "join"
        assert state_of(a, room) == state_of(c, room)
        # And with power of its own it needs nobody.
        world.asked.clear()
        levels = a.parts.graph.event(state_of(a, room)["m.room.power_levels", ""])
        assert levels is not None
        users = {**levels.content["users"], CAROL: 50}
        await a.send(ALICE, room, "m.room.power_levels", {**levels.content, "users": users}, state_key="")
        await world.deliver()
        await c.leave(CASS, room)
        await c.join(CASS, room)
        assert ("c.test", "a.test", "make_join") not in world.asked


async def test_a_resident_without_power_says_so_if_nobody_else_is_there(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "c.test") as world:
        hall, room = await with_carol(world, "restricted", "11")
        c = world.servers["c.test"]
        await c.join(CASS, hall, via=["a.test"])
        await world.stop("a.test")
        with pytest.raises(MatrixError) as refused:
            await c.join(CASS, room)
        assert refused.value.status == 502
        assert membership_of(c, room, CASS) is None


async def test_a_plain_no_is_told_rather_than_that_somebody_could_not_tell(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        _, room = await with_carol(world, "restricted", "12")
        b = world.servers["b.test"]
        with pytest.raises(MatrixError) as refused:
            await b.join(BOB, room, via=["c.test", "a.test"])
        assert refused.value.errcode == "M_FORBIDDEN"
        with pytest.raises(MatrixError) as refused:
            await b.join(BOB, room, via=["c.test"])
        assert refused.value.errcode == "M_UNABLE_TO_AUTHORISE_JOIN"


async def test_a_join_that_is_not_countersigned_is_not_taken(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "c.test") as world:
        hall, room = await with_carol(world, "restricted", "11")
        c = world.servers["c.test"]
        await c.join(CASS, hall, via=["a.test"])
        await world.deliver()

        async def unsigned(honest, asker, *args):  # type: ignore[no-untyped-def]  # a hook
            answer = await honest()
            answer["event"]["signatures"].pop("a.test")
            return answer

        world.hooks["a.test", "send_join"] = unsigned
        with pytest.raises(MatrixError) as refused:
            await c.join(CASS, room)
        assert refused.value.status == 502
        assert membership_of(c, room, CASS) is None


async def test_a_room_that_replaces_another_is_found_through_the_tombstone(tmp_path: Path) -> None:
    """The id of a room of version 12 names no server, and the client may not either."""
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        old = await a.create(ALICE, {"preset": "public_chat", "room_version": "10"})
        await b.join(BOB, old, via=["a.test"])
        await world.deliver()
        new = await a.upgrades.upgrade(ALICE, old, {"new_version": "12"})
        await world.deliver()
        assert await b.join(BOB, new) == new
        await world.deliver()
        assert state_of(a, new) == state_of(b, new)
        with pytest.raises(MatrixError) as refused:
            await b.join(BOB, "!" + "x" * 43)
        assert refused.value.status == 404
