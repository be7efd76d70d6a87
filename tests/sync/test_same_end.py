# SPDX-License-Identifier: Apache-2.0
"""Whoever syncs step by step ends up where somebody who starts now begins: random histories, random
moments."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minihs.matrix.errors import MatrixError
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World, new_world

ROOMS = 2

ACTS = [
    "say", "say", "say", "topic", "topic", "invite", "join", "join", "leave", "kick", "ban", "unban", "carol",
    "hear", "hear", "remote-join", "remote-leave", "remote-topic", "mark", "fork", "fork-topic",
]  # fmt: skip

acts = st.one_of(
    st.tuples(st.just("sync"), st.integers(1, 4)),
    st.tuples(st.sampled_from(ACTS), st.integers(0, ROOMS - 1)),
)
histories = st.lists(acts, min_size=3, max_size=30)


class Client:
    """What a client knows: state by room, and the timeline since the last gap."""

    def __init__(self, state_name: str, *, lazy: bool = False) -> None:
        self.since = ""
        self.state_name = state_name
        self.lazy = lazy
        self.state: dict[str, dict[tuple[str, str], str]] = {}
        self.timeline: dict[str, list[str]] = {}
        self.sections: dict[str, str] = {}
        self.been_in: set[str] = set()

    async def sync(self, world: World, limit: int, **options: Any) -> None:
        wanted: Json = {"room": {"timeline": {"limit": limit}}}
        if self.lazy:
            wanted["room"]["state"] = {"lazy_load_members": True}
        answer = await world.sync(
            BOB, self.since, filter=wanted, state_name=self.state_name, device="PHONE", **options
        )
        for section, rooms in answer["rooms"].items():
            for room_id, room in rooms.items():
                was = self.sections.get(room_id)
                self.sections[room_id] = section
                if section in ("join", "leave"):
                    self.take(room_id, room, is_new=section == "join" and was != "join")
        self.since = answer["next_batch"]

    def take(self, room_id: str, room: Json, *, is_new: bool) -> None:
        timeline, events = self.timeline.setdefault(room_id, []), room["timeline"]["events"]
        if room["timeline"]["limited"] or is_new:
            timeline.clear()
        known = set(timeline)
        timeline += [event["event_id"] for event in events if event["event_id"] not in known]
        state = self.state.setdefault(room_id, {})
        for event in room[self.state_name]["events"]:
            state[event["type"], event["state_key"]] = event["event_id"]
        if self.lazy and self.is_ours(room_id, room):
            for event in events:
                own = any(other.get("state_key") == event["sender"] for other in events)
                assert ("m.room.member", event["sender"]) in state or own, "a message by nobody"
        if self.state_name == "state":
            for event in events:
                if "state_key" in event:
                    state[event["type"], event["state_key"]] = event["event_id"]

    def is_ours(self, room_id: str, room: Json) -> bool:
        """Of a room that one was never in, one's own ban is shown and not who banned."""
        if self.sections[room_id] == "join" or room[self.state_name]["events"]:
            self.been_in.add(room_id)
        return room_id in self.been_in

    def joined(self) -> set[str]:
        return {room_id for room_id, section in self.sections.items() if section == "join"}


class Play:
    def __init__(self, world: World, rooms: list[str], *, forks: bool) -> None:
        self.world, self.rooms, self.forks = world, rooms, forks
        self.marks: dict[str, list[str]] = {}
        self.count = 0

    async def act(self, name: str, room: str) -> None:
        world, self.count = self.world, self.count + 1
        text = f"{name} {self.count}"
        after = self.marks.get(room) if self.forks and name.startswith("fork") else None
        if name.startswith("fork") and after is None:
            return
        match name:
            case "say":
                await world.say(ALICE, room, text)
            case "topic":
                await world.rooms.send(ALICE, room, "m.room.topic", {"topic": text}, state_key="")
            case "invite" | "kick" | "ban" | "unban":
                await getattr(world.rooms, name)(ALICE, room, BOB)
            case "join" | "leave":
                await getattr(world.rooms, name)(BOB, room)
            case "carol":
                await world.rooms.join(CAROL, room)
            case "hear" | "fork":
                await world.hear(DAVE, room, text, after=after)
            case "remote-join" | "remote-leave":
                await world.member(DAVE, room, name.partition("-")[2])
            case "remote-topic" | "fork-topic":
                await world.receive(DAVE, room, "m.room.topic", {"topic": text}, "", after=after)
            case "mark":
                self.marks[room] = world.tips(room)


async def play(history: list[tuple[str, int]], client: Client, *, forks: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with new_world(Path(folder)) as world:
            levels = {"users": {ALICE: 100, DAVE: 50}}
            rooms = [await world.room(power_level_content_override=levels) for _ in range(ROOMS)]
            for room in rooms:
                await world.member(DAVE, room, "join")
            actors = Play(world, rooms, forks=forks)
            for name, number in history:
                if name == "sync":
                    await client.sync(world, number)
                    continue
                try:
                    await actors.act(name, rooms[number])
                except MatrixError:
                    pass  # not allowed at this point of the history
            await client.sync(world, 5)
            fresh = Client(client.state_name)
            await fresh.sync(world, 200)
            compare(client, fresh)


def compare(client: Client, fresh: Client) -> None:
    assert client.joined() == fresh.joined()
    for section in ("invite", "knock"):
        assert {room for room, each in client.sections.items() if each == section} == {
            room for room, each in fresh.sections.items() if each == section
        }
    for room in fresh.joined():
        if client.lazy:
            mine = dict(client.state[room])
            whole = fresh.state[room]
            assert mine == {key: whole[key] for key in mine}
            assert {key for key in whole if key[0] != "m.room.member"} <= mine.keys()
        else:
            assert client.state[room] == fresh.state[room]
        mine_last, all_events = client.timeline[room], fresh.timeline[room]
        count = min(len(mine_last), len(all_events))
        assert count
        assert mine_last[-count:] == all_events[-count:]


slow = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@given(histories)
@slow
def test_step_by_step_with_state_after_in_a_dag_with_forks(history: list[tuple[str, int]]) -> None:
    trio.run(lambda: play(history, Client("state_after"), forks=True))


@given(histories)
@slow
def test_step_by_step_with_classic_state(history: list[tuple[str, int]]) -> None:
    trio.run(lambda: play(history, Client("state"), forks=False))


@given(histories)
@example([("sync", 1), ("ban", 1), ("sync", 1), ("unban", 1)])
@slow
def test_step_by_step_with_lazy_loaded_members(history: list[tuple[str, int]]) -> None:
    trio.run(lambda: play(history, Client("state", lazy=True), forks=False))
