# SPDX-License-Identifier: Apache-2.0
"""Whoever goes step by step by sliding sync, through windows, subscriptions, lost answers and restarts, ends
up where somebody begins who starts now, by sliding sync or by /sync: random histories, random moments."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minihs.matrix.errors import MatrixError
from minihs.sync.sliding.connections import SAVE_AFTER_MS
from tests.sync.sliding.kit import put
from tests.sync.test_same_end import ACTS, Client, Play
from tests.sync.world import ALICE, BOB, DAVE, Json, World, new_world

ROOMS = 3

WHOLE: Json = {"include": [{}]}
WATCHED: Json = {"include": [{"type": "m.room.topic"}], "lazy_members": True}
LAZY: Json = {"include": [{}], "lazy_members": True}

OWN_ACTS = ("slide", "lose", "restart", "watch")
DATA_ACTS = ("read", "tag", "set")
NAMES = [*["slide"] * 10, *OWN_ACTS, *DATA_ACTS, *["say"] * 4, *ACTS]

acts = st.tuples(st.sampled_from(NAMES), st.integers(0, 3 * ROOMS - 1))
histories = st.lists(acts, min_size=8, max_size=40)


class Slider:
    """What a client of sliding sync knows."""

    def __init__(self, conn_id: str, state: Json = WHOLE) -> None:
        self.conn_id, self.wanted = conn_id, state
        self.watched: set[str] = set()
        self.start_over()

    def start_over(self) -> None:
        self.pos = ""
        self.membership: dict[str, str] = {}
        self.state: dict[str, dict[tuple[str, str], str]] = {}
        self.stale: dict[str, set[tuple[str, str]]] = {}
        """Members that may have changed in a gap."""
        self.timeline: dict[str, list[str]] = {}
        self.data: dict[tuple[str, str], Json] = {}
        self.own_receipts: dict[str, str] = {}

    async def ask(self, world: World, size: int, limit: int) -> Json:
        wish = {"timeline_limit": limit, "required_state": self.wanted}
        watched = {"timeline_limit": limit + 2, "required_state": WATCHED}
        return await world.slide(
            BOB,
            self.pos,
            conn_id=self.conn_id,
            stable=True,
            lists={"all": {"range": [0, size - 1], **wish}},
            room_subscriptions=dict.fromkeys(self.watched, watched),
            extensions={"account_data": {"enabled": True}, "receipts": {"enabled": True}},
        )

    async def slide(self, world: World, size: int = ROOMS, *, limit: int) -> bool:
        """Returns whether there was something."""
        answer = await self.ask(world, size, limit)
        for room_id, room in answer["rooms"].items():
            self.membership[room_id] = room["membership"]
            if "stripped_state" not in room:
                self.take(room_id, room)
        data = answer["extensions"].get("account_data", {"global": [], "rooms": {}})
        for room_id, events in {"": data["global"], **data["rooms"]}.items():
            self.data |= {(room_id, event["type"]): event["content"] for event in events}
        for room_id, event in answer["extensions"].get("receipts", {"rooms": {}})["rooms"].items():
            for event_id, kinds in event["content"].items():
                if BOB in kinds.get("m.read", ()):
                    self.own_receipts[room_id] = event_id
        self.pos = answer["pos"]
        return bool(answer["rooms"] or answer["extensions"])

    def take(self, room_id: str, room: Json) -> None:
        events = room.get("timeline", [])
        timeline, state = self.timeline.setdefault(room_id, []), self.state.setdefault(room_id, {})
        stale = self.stale.setdefault(room_id, set())
        if room.get("initial"):
            state.clear()
            stale.clear()
        elif room.get("limited"):
            stale |= {key for key in state if key[0] == "m.room.member"}
        if room.get("limited") or room.get("initial"):
            timeline.clear()
        known = set(timeline)
        timeline += [event["event_id"] for event in events if event["event_id"] not in known]
        for event in room.get("required_state", ()):
            key = event["type"], event["state_key"]
            stale.discard(key)
            if "content" in event:
                state[key] = event["event_id"]
            else:
                state.pop(key, None)
        if [event.get("state_key") for event in events] != [BOB]:  # else it may have never been theirs to see
            for event in events:
                own = any(other.get("state_key") == event["sender"] for other in events)
                assert ("m.room.member", event["sender"]) in state or own, "a message by nobody"

    def with_membership(self, membership: str) -> set[str]:
        return {room_id for room_id, each in self.membership.items() if each == membership}


class SlidingPlay(Play):
    async def act(self, name: str, room: str) -> None:
        self.count += name in DATA_ACTS
        match name:
            case "read":
                (event,) = self.world.tips(room)[:1]
                await self.world.receipts.set_markers(BOB, room, {"m.read": event})
            case "tag":
                await put(self.world, BOB, "m.tag", {"tags": {f"u.{self.count}": {}}}, room)
            case "set":
                await put(self.world, BOB, "org.example.test", {"n": self.count})
            case _:
                await super().act(name, room)

    async def slide(self, slider: Slider, name: str, number: int) -> None:
        size, limit = 1 + number % ROOMS, 1 + number // ROOMS
        match name:
            case "slide":
                await slider.slide(self.world, size, limit=limit)
            case "lose":
                await slider.ask(self.world, size, limit)
            case "restart":
                self.world.clock.ms += SAVE_AFTER_MS * (number % 2)
                self.world.sliding = self.world.new_sliding()
                if slider.pos.split("-")[1:2] == ["1"]:
                    slider.start_over()  # nothing was saved yet, the position would be unknown
            case "watch":
                slider.watched ^= {self.rooms[number % ROOMS]}


async def play(history: list[tuple[str, int]], state: Json, *, forks: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with new_world(Path(folder)) as world:
            levels = {"users": {ALICE: 100, DAVE: 50}}
            rooms = [await world.room(power_level_content_override=levels) for _ in range(ROOMS)]
            for room in rooms:
                await world.member(DAVE, room, "join")
            for room in rooms[1:]:
                await world.rooms.join(BOB, room)
            actors, slider = SlidingPlay(world, rooms, forks=forks), Slider("steps", state)
            for name, number in history:
                if name in OWN_ACTS:
                    await actors.slide(slider, name, number)
                    continue
                try:
                    await actors.act(name, rooms[number % ROOMS])
                except MatrixError:
                    pass  # not allowed at this point of the history
            await slider.slide(world, limit=1)  # a larger one would bring again what was left out
            assert not await slider.slide(world, limit=1), "everything was told"
            fresh = Slider("fresh")
            await fresh.slide(world, limit=200)
            classic = Client("state_after")
            await classic.sync(world, 200)
            compare(slider, fresh, classic)


def compare(slider: Slider, fresh: Slider, classic: Client) -> None:
    joined = fresh.with_membership("join")
    assert slider.with_membership("join") == joined == classic.joined()
    invited = {room for room, section in classic.sections.items() if section == "invite"}
    assert slider.with_membership("invite") == fresh.with_membership("invite") == invited
    theirs = {"", *joined}
    assert {key: each for key, each in slider.data.items() if key[0] in theirs} == {
        key: each for key, each in fresh.data.items() if key[0] in theirs
    }
    for room in joined:
        assert slider.own_receipts.get(room) == fresh.own_receipts.get(room)
        whole = fresh.state[room]
        assert whole == classic.state[room]
        assert fresh.timeline[room] == classic.timeline[room]
        if slider.wanted is WHOLE:
            assert slider.state[room] == whole
        else:
            sure = {key: each for key, each in slider.state[room].items() if key not in slider.stale[room]}
            assert sure == {key: whole.get(key) for key in sure}
            assert {key for key in whole if key[0] != "m.room.member"} <= sure.keys()
        count = min(len(slider.timeline[room]), len(fresh.timeline[room]))
        assert count
        assert slider.timeline[room][-count:] == fresh.timeline[room][-count:]


slow = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


INVITED_BEFORE_A_RESTART = [
    ("kick", 1),
    *[("slide", 0)] * 3,
    ("invite", 1),
    ("slide", 0),
    ("restart", 0),
    ("leave", 1),
]
"""The invite is told after the connection was saved, and turned down after the restart."""


@example(INVITED_BEFORE_A_RESTART)
@given(histories)
@slow
def test_step_by_step_in_a_dag_with_forks(history: list[tuple[str, int]]) -> None:
    trio.run(lambda: play(history, WHOLE, forks=True))


@given(histories)
@slow
def test_step_by_step_with_lazy_loaded_members(history: list[tuple[str, int]]) -> None:
    trio.run(lambda: play(history, LAZY, forks=False))
