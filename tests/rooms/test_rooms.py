# SPDX-License-Identifier: Apache-2.0
"""Rooms on one server and between servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from minihs.matrix.errors import MatrixError
from minihs.store import memberships
from minihs.store import rooms as room_store
from tests.rooms.world import state_of, timeline_of, worlds

VERSIONS = ["1", "2", "3", "4", "6", "8", "10", "11", "12"]
ALICE, BOB, CAROL = "@alice:a.test", "@bob:b.test", "@carol:c.test"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_is_created_and_written_in(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"room_version": version, "name": "Hall", "preset": "public_chat"})
        event_id = await a.send(ALICE, room_id, "m.room.message", {"body": "hi", "msgtype": "m.text"})
        assert timeline_of(a, room_id)[-1] == event_id
        state = state_of(a, room_id)
        assert ("m.room.name", "") in state
        assert ("m.room.member", ALICE) in state


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_user_of_another_server_joins_and_both_talk(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(
            ALICE, {"room_version": version, "preset": "public_chat", "room_alias_name": "hall"}
        )
        assert await b.join(BOB, "#hall:a.test") == room_id
        first = await b.send(BOB, room_id, "m.room.message", {"body": "hello"})
        await world.deliver()
        assert timeline_of(a, room_id)[-1] == first
        second = await a.send(ALICE, room_id, "m.room.message", {"body": "welcome"})
        await world.deliver()
        assert timeline_of(b, room_id)[-1] == second
        assert state_of(a, room_id) == state_of(b, room_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_state_changed_on_both_sides_of_a_partition_is_agreed_on_after_it(
    tmp_path: Path, version: str
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"room_version": version, "preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        levels = a.parts.graph.event(state_of(a, room_id)["m.room.power_levels", ""])
        assert levels is not None
        users = {**levels.content.get("users", {}), BOB: 50}
        await a.send(ALICE, room_id, "m.room.power_levels", {**levels.content, "users": users}, state_key="")
        await world.deliver()
        world.separate("a.test")
        await a.send(ALICE, room_id, "m.room.name", {"name": "A"}, state_key="")
        await b.send(BOB, room_id, "m.room.name", {"name": "B"}, state_key="")
        await b.send(BOB, room_id, "m.room.topic", {"topic": "B"}, state_key="")
        for n in range(3):
            await a.send(ALICE, room_id, "m.room.message", {"body": f"a{n}"})
            await b.send(BOB, room_id, "m.room.message", {"body": f"b{n}"})
        world.reunite()
        await world.deliver()
        await a.send(ALICE, room_id, "m.room.message", {"body": "after"})
        await world.deliver()
        assert state_of(a, room_id) == state_of(b, room_id)
        assert ("m.room.topic", "") in state_of(a, room_id)
        assert set(timeline_of(b, room_id)) <= set(timeline_of(a, room_id))


async def test_a_room_of_three_servers_stays_one(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        a, b, c = (world.servers[name] for name in ("a.test", "b.test", "c.test"))
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        await c.join(CAROL, room_id, via=["b.test"])
        await world.deliver()
        for server, user in ((a, ALICE), (b, BOB), (c, CAROL)):
            await server.send(user, room_id, "m.room.message", {"body": "x"})
        await world.deliver()
        assert state_of(a, room_id) == state_of(b, room_id) == state_of(c, room_id)
        await b.leave(BOB, room_id)
        await world.deliver()
        assert state_of(a, room_id) == state_of(c, room_id)


async def test_missing_events_are_fetched(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        sent = [await a.send(ALICE, room_id, "m.room.message", {"n": n}) for n in range(30)]
        newest = a.parts.graph.event(sent[-1])
        assert newest is not None
        world.sent_up_to["a.test", "b.test"] = 10**9  # all but the newest is lost on the way
        await b.transactions.receive("a.test", "x", {"pdus": [newest.json], "edus": []})
        await world.rest()
        assert timeline_of(b, room_id)[-30:] == sent


async def test_history_before_joining_is_backfilled(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        for n in range(30):
            await a.send(ALICE, room_id, "m.room.message", {"n": n})
            if n % 10 == 5:
                await a.send(ALICE, room_id, "m.room.topic", {"topic": f"{n}"}, state_key="")
        await b.join(BOB, room_id, via=["a.test"])
        for _ in range(20):
            if not await b.backfill(room_id, before=(0, 0), limit=10):
                break
        await world.deliver()
        assert timeline_of(b, room_id) == timeline_of(a, room_id)


async def test_an_invite_is_accepted(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "private_chat", "invite": [BOB], "is_direct": True})
        room = room_store.get(b.parts.db.read, room_id)
        assert room is not None
        held = memberships.get(b.parts.db.read, room.room_nid, BOB)
        assert held is not None
        assert held.membership == "invite"
        assert held.stripped is not None
        await b.join(BOB, room_id)
        await world.deliver()
        assert state_of(a, room_id) == state_of(b, room_id)


@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize("what", ["invite", "knock"])
async def test_an_invite_or_knock_is_ended_whether_or_not_a_resident_answers(
    tmp_path: Path, what: str, reachable: bool
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        if what == "invite":
            room_id = await a.create(ALICE, {"preset": "private_chat", "invite": [BOB]})
        else:
            rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
            room_id = await a.create(ALICE, {"initial_state": [rules]})
            await b.knock(BOB, room_id, via=["a.test"])
        if not reachable:
            world.separate("a.test")
        await b.leave(BOB, room_id)
        room_nid = room_store.room_nid(b.parts.db.read, room_id)
        assert room_nid is not None
        held = memberships.get(b.parts.db.read, room_nid, BOB)
        assert held is not None
        assert held.membership == "leave"
        if reachable:
            member = a.parts.graph.event(state_of(a, room_id)["m.room.member", BOB])
            assert member is not None
            assert member.membership == "leave"


async def test_an_invite_is_rescinded(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "private_chat", "invite": [BOB]})
        await a.kick(ALICE, room_id, BOB, "changed my mind")
        await world.deliver()
        room_nid = room_store.room_nid(b.parts.db.read, room_id)
        assert room_nid is not None
        held = memberships.get(b.parts.db.read, room_nid, BOB)
        assert held is not None
        assert held.membership == "leave"


async def test_leaving_and_coming_back(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        await b.leave(BOB, room_id)
        await world.deliver()
        for n in range(5):
            await a.send(ALICE, room_id, "m.room.message", {"n": n})
        await world.deliver()
        with pytest.raises(MatrixError):
            await b.send(BOB, room_id, "m.room.message", {"body": "still here?"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        event_id = await b.send(BOB, room_id, "m.room.message", {"body": "back"})
        await world.deliver()
        assert timeline_of(a, room_id)[-1] == event_id
        assert state_of(a, room_id) == state_of(b, room_id)


async def test_a_banned_user_cannot_join_until_unbanned(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat"})
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        await a.ban(ALICE, room_id, BOB)
        await world.deliver()
        with pytest.raises(MatrixError) as refused:
            await b.join(BOB, room_id, via=["a.test"])
        assert refused.value.errcode == "M_FORBIDDEN"
        await a.unban(ALICE, room_id, BOB)
        await b.join(BOB, room_id, via=["a.test"])
        await world.deliver()
        assert state_of(a, room_id) == state_of(b, room_id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_redaction_takes_effect_on_both_servers(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat", "room_version": version})
        await b.join(BOB, room_id, via=["a.test"])
        event_id = await b.send(BOB, room_id, "m.room.message", {"body": "oops"})
        await world.deliver()
        await a.redact(ALICE, room_id, event_id, {"reason": "no"}, None, None)
        await world.deliver()
        for server in (a, b):
            stored = server.parts.graph.stored(event_id)
            assert stored is not None
            assert stored.redacted_by is not None
            assert stored.event.content == {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_user_without_the_power_redacts_only_their_own(tmp_path: Path, version: str) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {"preset": "public_chat", "room_version": version})
        dave = "@dave:a.test"
        await a.join(dave, room_id)
        hers = await a.send(ALICE, room_id, "m.room.message", {"body": "hers"})
        his = await a.send(dave, room_id, "m.room.message", {"body": "his"})
        for target, errcode in ((hers, "M_FORBIDDEN"), ("$unknown:a.test", "M_NOT_FOUND")):
            with pytest.raises(MatrixError) as refused:
                await a.redact(dave, room_id, target, {}, None, None)
            assert refused.value.errcode == errcode
            if version in ("11", "12"):
                with pytest.raises(MatrixError):
                    await a.send(dave, room_id, "m.room.redaction", {"redacts": target})
        await a.redact(dave, room_id, his, {}, None, None)
        bodies = [a.parts.graph.event(event_id) for event_id in (hers, his)]
        assert [event.content for event in bodies if event is not None] == [{"body": "hers"}, {}]


async def test_a_repeated_request_makes_one_event(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test") as world:
        a = world.servers["a.test"]
        room_id = await a.create(ALICE, {})
        one = await a.send(ALICE, room_id, "m.room.message", {"n": 1}, device_id="D", txn_id="t")
        two = await a.send(ALICE, room_id, "m.room.message", {"n": 1}, device_id="D", txn_id="t")
        assert one == two
