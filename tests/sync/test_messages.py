# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.store import ids
from minihs.store.database import Tx
from minihs.sync.filters import parse_event_filter
from minihs.sync.messages import Messages, PageOptions
from minihs.sync.ports import NoHistory
from tests.sync.world import ALICE, BOB, CAROL, DAVE, Json, World, bodies


async def page(world: World, user: str, room: str, **options: Any) -> Json:
    history = options.pop("history", NoHistory())
    wanted = parse_event_filter(options.pop("filter", {}))
    messages = Messages(world.db, world.runtime, world.facts, history)
    return await messages.page(
        Requester(user, "PHONE", 1),
        room,
        PageOptions(**{"forward": False, "limit": 10, "filter": wanted, **options}),
    )


async def all_pages(world: World, user: str, room: str, **options: Any) -> list[Json]:
    """Every event, page by page."""
    events: list[Json] = []
    for _ in range(100):
        found = await page(world, user, room, **options)
        events += found["chunk"]
        if "end" not in found:
            return events
        options["start"] = found["end"]
    raise AssertionError("the pages never end")


async def test_paging_back_gives_each_event_once_newest_first(world: World) -> None:
    room = await world.room()
    for number in range(25):
        await world.say(ALICE, room, str(number))
    for limit in (1, 3, 10, 100):
        events = await all_pages(world, ALICE, room, limit=limit)
        assert bodies(events) == [str(number) for number in reversed(range(25))]
        assert events[-1]["type"] == "m.room.create"
        assert len({event["event_id"] for event in events}) == len(events)
        assert all(event["room_id"] == room for event in events)


async def test_paging_forward_is_the_same_the_other_way(world: World) -> None:
    room = await world.room()
    for number in range(12):
        await world.say(ALICE, room, str(number))
    back = await all_pages(world, ALICE, room, limit=5)
    forward = await all_pages(world, ALICE, room, limit=5, forward=True)
    assert [event["event_id"] for event in forward] == [event["event_id"] for event in reversed(back)]


async def test_the_gap_of_a_limited_sync_can_be_filled_from_both_ends(world: World) -> None:
    room = await world.room()
    first = await world.sync(ALICE)
    for number in range(15):
        await world.say(ALICE, room, str(number))
    timeline = (await world.sync(ALICE, first["next_batch"]))["rooms"]["join"][room]["timeline"]
    since, until = first["next_batch"], timeline["prev_batch"]
    back = await page(world, ALICE, room, start=until, stop=since, limit=100)
    assert bodies(back["chunk"]) == [str(number) for number in reversed(range(5))]
    forward = await page(world, ALICE, room, start=since, stop=until, forward=True, limit=100)
    assert bodies(forward["chunk"]) == [str(number) for number in range(5)]


async def test_a_late_event_of_an_old_fork_is_not_lost_from_a_gap(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    fork = world.tips(room)
    for number in range(5):
        await world.say(ALICE, room, f"early {number}")
    first = await world.sync(ALICE)
    await world.hear(DAVE, room, "late", after=fork)
    for number in range(10):
        await world.say(ALICE, room, str(number))
    timeline = (await world.sync(ALICE, first["next_batch"]))["rooms"]["join"][room]["timeline"]
    assert "late" not in bodies(timeline)
    back = await page(world, ALICE, room, start=timeline["prev_batch"], stop=first["next_batch"], limit=100)
    assert "late" in bodies(back["chunk"])


async def test_pages_hold_only_what_the_reader_may_see(world: World) -> None:
    room = await world.room(
        initial_state=[
            {
                "type": "m.room.history_visibility",
                "state_key": "",
                "content": {"history_visibility": "joined"},
            }
        ]
    )
    for number in range(30):
        await world.say(ALICE, room, f"secret {number}")
    await world.rooms.join(BOB, room)
    await world.say(ALICE, room, "welcome")
    events = await all_pages(world, BOB, room, limit=2)
    assert bodies(events) == ["welcome"]
    assert [event["type"] for event in events[:2]] == ["m.room.message", "m.room.member"]


async def test_a_page_full_of_what_is_hidden_goes_on(world: World) -> None:
    room = await world.room()
    await world.say(ALICE, room, "wanted")
    for number in range(40):
        await world.rooms.send(ALICE, room, "m.noise", {"number": number})
    found = await page(world, ALICE, room, limit=1, filter={"types": ["m.room.message"]})
    assert bodies(found["chunk"]) == ["wanted"]


async def test_when_nothing_is_found_for_long_an_empty_chunk_with_an_end_is_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minihs.sync.messages.MAX_ROUNDS", 2)
    room = await world.room()
    await world.say(ALICE, room, "wanted")
    for number in range(40):
        await world.rooms.send(ALICE, room, "m.noise", {"number": number})
    found = await page(world, ALICE, room, limit=1, filter={"types": ["m.room.message"]})
    assert found["chunk"] == []
    assert found["end"]
    assert bodies(await all_pages(world, ALICE, room, limit=1, filter={"types": ["m.room.message"]})) == [
        "wanted"
    ]


async def test_strangers_are_refused_and_world_readable_rooms_are_open(world: World) -> None:
    room = await world.room()
    await world.say(ALICE, room, "hello")
    for stranger in (CAROL, BOB):
        with pytest.raises(MatrixError) as refusal:
            await page(world, stranger, room)
        assert (refusal.value.status, refusal.value.errcode) == (403, "M_FORBIDDEN")
    await world.rooms.send(
        ALICE, room, "m.room.history_visibility", {"history_visibility": "world_readable"}, state_key=""
    )
    await world.say(ALICE, room, "hello, world")
    assert bodies((await page(world, CAROL, room))["chunk"]) == ["hello, world"]


async def test_who_left_pages_from_their_leave(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    await world.say(ALICE, room, "one")
    await world.rooms.leave(BOB, room)
    await world.say(ALICE, room, "two")
    found = await page(world, BOB, room)
    assert bodies(found["chunk"]) == ["one"]
    assert found["chunk"][0]["content"]["membership"] == "leave"
    assert bodies(await all_pages(world, BOB, room, forward=True)) == ["one"]


async def test_lazy_loading_adds_the_members_who_speak(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    await world.rooms.join(CAROL, room)
    await world.say(BOB, room, "hello")
    found = await page(world, ALICE, room, limit=1, filter={"lazy_load_members": True})
    assert [event["state_key"] for event in found["state"]] == [BOB]
    assert "state" not in await page(world, ALICE, room, limit=1)


@pytest.mark.parametrize("token", ["nonsense", "t1", "t1_x", "s", "t99999999999999999999_0"])
async def test_malformed_tokens_are_refused(world: World, token: str) -> None:
    room = await world.room()
    for name in ("start", "stop"):
        with pytest.raises(MatrixError) as refusal:
            await page(world, ALICE, room, **{name: token})
        assert refusal.value.errcode == "M_INVALID_PARAM"


class Archive:
    """Another server that has history: notes what it is asked, and hides or gives an event each time."""

    def __init__(self, world: World, found: bool = False) -> None:
        self.world = world
        self.asked: list[tuple[int, int]] = []
        self.found = found

    async def backfill(self, room_id: str, *, before: tuple[int, int], limit: int) -> bool:
        self.asked.append(before)
        if not self.found:
            return False
        nid = self.world.room_nid(room_id)

        def fill(tx: Tx) -> None:
            tx.execute("DELETE FROM backward_extremities WHERE room_nid = ?", (nid,))

        await self.world.db.write(fill)
        return True


async def cut_off(world: World, room: str, at: str) -> None:
    """As if we lacked what is before an event."""
    nid = world.room_nid(room)

    def cut(tx: Tx) -> None:
        tx.execute(
            "INSERT INTO backward_extremities SELECT ?, 999999, event_nid FROM event_ids WHERE event_id = ?",
            (nid, at),
        )

    await world.db.write(cut)


async def test_where_history_is_missing_other_servers_are_asked_a_bounded_number_of_times(
    world: World,
) -> None:
    room = await world.room()
    first = await world.say(ALICE, room, "first of ours")
    await cut_off(world, room, first)
    for number in range(5):
        await world.say(ALICE, room, str(number))
    archive = Archive(world)
    found = await page(world, ALICE, room, limit=3, history=archive)
    assert archive.asked == []
    found = await page(world, ALICE, room, limit=3, start=found["end"], history=archive)
    assert 1 <= len(archive.asked) <= 2
    assert bodies(found["chunk"]) == ["1", "0", "first of ours"]
    helpful = Archive(world, found=True)
    await page(world, ALICE, room, limit=3, start=found["end"], history=helpful)
    assert len(helpful.asked) == 1


async def test_a_server_that_does_not_answer_does_not_hold_the_page_for_ever(
    world: World, autojump_clock: MockClock
) -> None:
    room = await world.room()
    await cut_off(world, room, await world.say(ALICE, room, "first"))

    class Silence:
        async def backfill(self, room_id: str, *, before: tuple[int, int], limit: int) -> bool:
            await trio.sleep_forever()
            raise AssertionError

    started = trio.current_time()
    found = await page(world, ALICE, room, history=Silence())
    assert bodies(found["chunk"]) == ["first"]
    assert trio.current_time() - started < 60


async def test_history_fetched_into_a_gap_is_found_from_the_token_before_it(world: World) -> None:
    """A server was away: what it missed is fetched when the client pages back, and lies between."""
    room = await world.room()
    await world.say(ALICE, room, "before")
    first = await world.sync(ALICE)
    after = await world.say(ALICE, room, "after")
    nid, after_nid = world.room_nid(room), ids.event_nid(world.db.read, after)

    class Fills:
        """Stores one event just before the gap's successor, as backfill does."""

        async def backfill(self, room_id: str, *, before: tuple[int, int], limit: int) -> bool:
            def fill(tx: Tx) -> None:
                tx.execute("DELETE FROM backward_extremities WHERE room_nid = ?", (nid,))
                tx.execute("INSERT INTO event_ids (event_nid, event_id) VALUES (999999, '$between')")
                columns = [row[1] for row in tx.execute("PRAGMA table_info (events)").fetchall()]
                values = ", ".join(
                    {"event_nid": "999999", "topo": "topo - 1", "arrival": "-1"}.get(name, name)
                    for name in columns
                )
                tx.execute(
                    f"INSERT INTO events ({', '.join(columns)}) SELECT {values} FROM events "
                    "WHERE event_nid = ?",
                    (after_nid,),
                )
                tx.execute(
                    "INSERT INTO event_json SELECT 999999, json FROM event_json WHERE event_nid = ?",
                    (after_nid,),
                )

            await world.db.write(fill)
            return True

    def make_room(tx: Tx) -> None:
        tx.execute("UPDATE events SET topo = topo + 5 WHERE event_nid = ?", (after_nid,))

    await world.db.write(make_room)
    await cut_off(world, room, after)
    timeline = (await world.sync(ALICE, first["next_batch"]))["rooms"]["join"][room]["timeline"]
    assert timeline["limited"] is True
    found = await page(world, ALICE, room, start=timeline["prev_batch"], limit=2, history=Fills())
    assert found["chunk"][0]["event_id"] == "$between"
    assert bodies(found["chunk"])[1] == "before"
    forward = await page(world, ALICE, room, start=first["next_batch"], forward=True, limit=2)
    assert [event["event_id"] for event in forward["chunk"]] == ["$between", after]


async def test_a_room_of_which_only_the_join_is_here_is_paged_into_its_past(world: World) -> None:
    room = await world.room()
    token = (await world.sync(ALICE))["next_batch"]
    event_id = await world.say(ALICE, room, "the first that we have")
    await cut_off(world, room, event_id)
    nid = world.room_nid(room)

    def forget_the_rest(tx: Tx) -> None:
        tx.execute(
            "UPDATE events SET topo = NULL WHERE room_nid = ? "
            "AND event_nid != (SELECT event_nid FROM event_ids WHERE event_id = ?)",
            (nid, event_id),
        )

    await world.db.write(forget_the_rest)
    archive = Archive(world)
    found = await page(world, ALICE, room, start=token, history=archive)
    assert len(archive.asked) == 2
    assert found["chunk"] == []
    assert "end" not in found
