# SPDX-License-Identifier: Apache-2.0
"""What a resident hands out in bulk: the answer to send_join, state and auth chains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix import canonical
from minihs.matrix.errors import MatrixError
from minihs.matrix.hashes import event_id_of
from minihs.matrix.ids import domain_of
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.rooms import answers
from minihs.rooms.answers import EventsAnswer, Slots
from minihs.rooms.handshake import own_member_event, read_template
from minihs.rooms.service import Rooms
from tests.rooms.world import World, state_of, worlds

ALICE, BOB = "@alice:a.test", "@bob:b.test"


async def join_event(world: World, room_id: str, user_id: str = BOB) -> Any:
    """A join as its server would hand it in to a.test."""
    template = await world.servers["a.test"].resident.make(
        domain_of(user_id), room_id, user_id, "join", ["11", "12"]
    )
    read = read_template("a.test", template, room_id=room_id, user_id=user_id, membership="join")
    parts = world.servers[domain_of(user_id)].parts
    return own_member_event(parts, "a.test", read, room_id, user_id, {"membership": "join"})


async def whole(answer: EventsAnswer) -> Any:
    return canonical.loads(b"".join([chunk async for chunk in answer.stream()]))


async def handed_in(world: World, room_id: str, *, omit_members: bool) -> Any:
    event = await join_event(world, room_id)
    resident = world.servers["a.test"].resident
    return await whole(
        await resident.send_join("b.test", room_id, event.event_id, event.json, omit_members=omit_members)
    )


async def crowded_room(a: Rooms, **request: Any) -> str:
    room_id = await a.create(ALICE, {"preset": "public_chat", **request})
    for number in range(8):
        await a.join(f"@guest{number}:a.test", room_id)
    return room_id


def ids_of(events: list[Any], version: str) -> set[str]:
    return {event_id_of(event, ROOM_VERSIONS[version]) for event in events}


@pytest.mark.parametrize("version", ["11", "12"])
async def test_a_joining_server_gets_all_state_and_all_of_its_auth_chain(
    tmp_path: Path, version: str
) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await crowded_room(a, name="Hall", room_version=version)
        before = state_of(a, room_id)
        answer = await handed_in(world, room_id, omit_members=False)
        assert ids_of(answer["state"], version) == set(before.values())
        assert answer["members_omitted"] is False
        assert "servers_in_room" not in answer
        # Whole: what is in the state is not left out of the chain.
        assert before["m.room.power_levels", ""] in ids_of(answer["auth_chain"], version)
        assert answer["event"]["state_key"] == BOB


async def test_members_are_omitted_when_that_is_wanted(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await crowded_room(a, name="Hall")
        before = state_of(a, room_id)
        answer = await handed_in(world, room_id, omit_members=True)
        assert answer["members_omitted"] is True
        assert answer["servers_in_room"] == ["a.test"]
        assert "m.room.member" not in {event["type"] for event in answer["state"]}
        assert {(event["type"], event["state_key"]) for event in answer["state"]} == {
            key for key in before if key[0] != "m.room.member"
        }
        # The chain has what the state events rest on, and nothing twice.
        chain = ids_of(answer["auth_chain"], "12")
        assert before["m.room.member", ALICE] in chain
        assert before["m.room.member", "@guest1:a.test"] not in chain
        assert not chain & ids_of(answer["state"], "12")


async def test_those_who_give_a_nameless_room_its_name_are_not_omitted(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test") as world:
        room_id = await crowded_room(world.servers["a.test"])
        answer = await handed_in(world, room_id, omit_members=True)
        shown = {event["state_key"] for event in answer["state"] if event["type"] == "m.room.member"}
        assert shown == {ALICE, *(f"@guest{number}:a.test" for number in range(4))}


async def test_state_of_more_than_one_batch_comes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BATCH", 3)
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await crowded_room(a)
        await world.servers["b.test"].join(BOB, room_id, via=["a.test"])
        last = await a.send(ALICE, room_id, "m.room.message", {"body": "x"})
        state = state_of(a, room_id)
        ids = await whole(await a.serving.state_ids("b.test", room_id, last))
        assert set(ids["pdu_ids"]) == set(state.values())
        assert len(ids["pdu_ids"]) == len(state) > 3
        events = await whole(await a.serving.state("b.test", room_id, last))
        assert ids_of(events["pdus"], "12") == set(ids["pdu_ids"])
        assert ids_of(events["auth_chain"], "12") == set(ids["auth_chain_ids"])


async def test_an_answer_that_is_read_too_slowly_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(answers, "BATCH", 1)
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await crowded_room(a)
        await world.servers["b.test"].join(BOB, room_id, via=["a.test"])
        last = await a.send(ALICE, room_id, "m.room.message", {"body": "x"})
        for pause in (10, 100):
            answer = await a.serving.state("b.test", room_id, last)
            started, done = trio.current_time(), False
            try:
                async for _ in answer.stream():
                    await trio.sleep(pause)
                done = True
            except trio.BrokenResourceError:
                assert trio.current_time() - started < answers.MAX_SECONDS + 2 * pause
            assert done is (pause == 10)
            assert not a.serving.slots._is_full("b.test")
            assert a.serving.slots._of_server.total() == 0


async def test_a_server_gets_only_some_large_answers_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.05)
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a = world.servers["a.test"]
        room_id = await crowded_room(a)
        await world.servers["b.test"].join(BOB, room_id, via=["a.test"])
        last = await a.send(ALICE, room_id, "m.room.message", {"body": "x"})
        streams = [
            (await a.serving.state("b.test", room_id, last)).stream()
            for _ in range(answers.MAX_UNDER_WAY_OF_SERVER)
        ]
        for stream in streams:
            await anext(stream)
        with pytest.raises(MatrixError) as refused:
            await a.serving.state("b.test", room_id, last)
        assert refused.value.status == 429
        event = await join_event(world, room_id, "@carol:b.test")
        with pytest.raises(MatrixError) as refused:
            await a.resident.send_join("b.test", room_id, event.event_id, event.json)
        assert refused.value.status == 429
        assert ("m.room.member", "@carol:b.test") not in state_of(a, room_id)
        for stream in streams:
            await stream.aclose()
        await a.serving.state("b.test", room_id, last)


async def test_who_waits_for_a_large_answer_gets_its_turn(tmp_path: Path) -> None:
    slots = Slots()
    order: list[str] = []

    async def answer(name: str) -> None:
        await slots.wait("b.test")
        with slots.hold("b.test"):
            order.append(name)
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for number in range(3 * answers.MAX_UNDER_WAY_OF_SERVER):
            nursery.start_soon(answer, str(number))
    assert len(order) == 3 * answers.MAX_UNDER_WAY_OF_SERVER


async def test_large_answers_are_bounded_over_all_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.05)
    slots = Slots()
    held = [slots.hold(f"{number}.test") for number in range(answers.MAX_UNDER_WAY)]
    for each in held:
        each.__enter__()
    with pytest.raises(MatrixError):
        await slots.wait("another.test")
    held[0].__exit__(None, None, None)
    await slots.wait("another.test")


async def test_two_rooms_of_the_same_moment_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with worlds(tmp_path, "a.test") as world:
        monkeypatch.setattr(world.clock, "now_ms", lambda: 1_800_000_000_000)
        a = world.servers["a.test"]
        created = [await a.create(ALICE, {"room_version": "12"}) for _ in range(3)]
        assert len(set(created)) == 3
