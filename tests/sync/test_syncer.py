# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from minihs.matrix.errors import MatrixError
from minihs.store import to_device
from minihs.store.database import Tx
from minihs.sync import polls, syncer
from minihs.sync.client_events import Viewer
from minihs.sync.polls import Attempt, Polls
from tests.sync.world import ALICE, BOB, CAROL, DAVE, ERIN, World, bodies, state_of


async def test_the_first_sync_has_the_room_with_its_state_and_timeline(world: World) -> None:
    room = await world.room(name="Den")
    await world.say(ALICE, room, "hello")
    answer = await world.sync(ALICE)
    joined = answer["rooms"]["join"][room]
    assert bodies(joined["timeline"]) == ["hello"]
    assert joined["timeline"]["limited"] is False
    state = state_of(joined["state"]) | state_of(
        {"events": [event for event in joined["timeline"]["events"] if "state_key" in event]}
    )
    assert state["m.room.name", ""]["content"] == {"name": "Den"}
    assert state["m.room.member", ALICE]["content"]["membership"] == "join"
    assert joined["summary"] == {"m.joined_member_count": 1, "m.invited_member_count": 0}


async def test_state_is_what_was_before_the_timeline(world: World) -> None:
    room = await world.room(name="old name")
    await world.say(ALICE, room, "one")
    await world.rooms.send(ALICE, room, "m.room.name", {"name": "new name"}, state_key="")
    await world.say(ALICE, room, "two")
    joined = (await world.sync(ALICE, filter={"room": {"timeline": {"limit": 2}}}))["rooms"]["join"][room]
    assert [event["type"] for event in joined["timeline"]["events"]] == ["m.room.name", "m.room.message"]
    assert joined["timeline"]["limited"] is True
    assert state_of(joined["state"])["m.room.name", ""]["content"] == {"name": "old name"}
    after = await world.sync(ALICE, filter={"room": {"timeline": {"limit": 2}}}, state_name="state_after")
    joined = after["rooms"]["join"][room]
    assert "state" not in joined
    assert state_of(joined["state_after"])["m.room.name", ""]["content"] == {"name": "new name"}


async def test_an_incremental_sync_has_only_what_is_new(world: World) -> None:
    room = await world.room()
    other = await world.room()
    first = await world.sync(ALICE)
    await world.say(ALICE, room, "news")
    second = await world.sync(ALICE, first["next_batch"])
    assert list(second["rooms"]["join"]) == [room]
    joined = second["rooms"]["join"][room]
    assert bodies(joined["timeline"]) == ["news"]
    assert joined["timeline"]["limited"] is False
    assert joined["state"]["events"] == []
    third = await world.sync(ALICE, second["next_batch"])
    assert third["rooms"]["join"] == {}
    assert other in first["rooms"]["join"]


async def test_a_gap_is_limited_and_its_state_changes_come_as_state(world: World) -> None:
    room = await world.room()
    first = await world.sync(ALICE)
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "in the gap"}, state_key="")
    for number in range(12):
        await world.say(ALICE, room, str(number))
    joined = (await world.sync(ALICE, first["next_batch"]))["rooms"]["join"][room]
    assert bodies(joined["timeline"]) == [str(number) for number in range(2, 12)]
    assert joined["timeline"]["limited"] is True
    assert list(state_of(joined["state"])) == [("m.room.topic", "")]


async def test_a_long_poll_ends_at_once_when_something_is_said(
    world: World, autojump_clock: MockClock
) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    first = await world.sync(BOB)
    answers = []

    async def poll() -> None:
        started = trio.current_time()
        answers.append(await world.sync(BOB, first["next_batch"], timeout_ms=30_000))
        assert trio.current_time() - started == pytest.approx(5, abs=0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await trio.sleep(5)
        await world.say(ALICE, room, "wake up")
    assert bodies(answers[0]["rooms"]["join"][room]["timeline"]) == ["wake up"]


async def test_a_long_poll_without_news_ends_with_its_time_out(
    world: World, autojump_clock: MockClock
) -> None:
    await world.room()
    first = await world.sync(ALICE)
    started = trio.current_time()
    answer = await world.sync(ALICE, first["next_batch"], timeout_ms=7_000)
    assert trio.current_time() - started == pytest.approx(7, abs=0.5)
    assert answer["rooms"] == {"join": {}, "invite": {}, "knock": {}, "leave": {}}


async def _say(world: World, room: str) -> None:
    await world.say(ALICE, room, "meanwhile")


async def _type(world: World, room: str) -> None:
    world.typing.set_typing(ALICE, room, typing=True, timeout_ms=None)


async def _message_to_device(world: World, room: str) -> None:
    await world.db.write(lambda tx: to_device.add(tx, BOB, "PHONE", ALICE, "m.test", {}))


async def test_who_was_away_for_long_is_answered_from_a_thread(
    world: World, scans: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await world.room()
    since = (await world.sync(ALICE))["next_batch"]
    scans.clear()
    for body, expected in (("soon", 0), ("late", 1)):
        await world.say(ALICE, room, body)
        answer = await world.sync(ALICE, since)
        since = answer["next_batch"]
        assert bodies(answer["rooms"]["join"][room]["timeline"]) == [body]
        assert len(scans) == expected
        monkeypatch.setattr(syncer, "LONG_ABSENCE", 0)


@pytest.mark.parametrize("happens", [_say, _type, _message_to_device])
async def test_what_happens_between_two_polls_is_in_the_second_at_once(
    world: World, autojump_clock: MockClock, happens: Callable[[World, str], Awaitable[None]]
) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    since = (await world.sync(BOB))["next_batch"]
    since = (await world.sync(BOB, since, timeout_ms=1_000))["next_batch"]
    await happens(world, room)
    started = trio.current_time()
    answer = await world.sync(BOB, since, timeout_ms=30_000)
    assert trio.current_time() - started < 1
    assert answer["rooms"]["join"] or answer["to_device"]["events"]


async def test_messages_that_a_poll_confirms_are_gone(world: World, autojump_clock: MockClock) -> None:
    await world.room(BOB)
    since = (await world.sync(BOB))["next_batch"]
    await _message_to_device(world, "")
    answer = await world.sync(BOB, since, timeout_ms=1_000)
    assert len(answer["to_device"]["events"]) == 1
    await world.sync(BOB, answer["next_batch"], timeout_ms=1_000)
    assert world.db.read.execute("SELECT COUNT(*) FROM to_device").fetchone() == (0,)


async def test_a_poll_listens_to_a_room_that_was_joined_meanwhile(
    world: World, autojump_clock: MockClock
) -> None:
    room = await world.room()
    attempts: list[float] = []

    async def attempt() -> Attempt[None]:
        attempts.append(trio.current_time())
        return Attempt(None, is_empty=True, counts=())

    async with trio.open_nursery() as nursery:
        waiting = Polls(world.db, world.notifier, world.typing)
        nursery.start_soon(waiting.wait, Viewer(BOB, "PHONE"), 30.0, attempt)
        await trio.sleep(1)
        await world.rooms.join(BOB, room)
        await trio.sleep(1)
        before = len(attempts)
        await world.say(ALICE, room, "hello")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(attempts) == before + 1


async def test_of_the_rooms_of_those_who_poll_only_so_many_are_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "ROOMS_BYTES", 10 * polls.KEY_BYTES)
    small = Polls(world.db, world.notifier, world.typing)
    for number in range(11):
        user_id = f"@u{number}:a.test"
        assert small._keys(Viewer(user_id, "PHONE"))[0] == f"user:{user_id}"
        assert small._rooms.size == min(number + 1, 10) * polls.KEY_BYTES


async def test_the_next_poll_listens_to_a_room_that_was_joined_since_the_last(
    world: World, autojump_clock: MockClock
) -> None:
    room, other = await world.room(), await world.room(BOB)
    attempts: list[float] = []

    async def attempt() -> Attempt[None]:
        attempts.append(trio.current_time())
        return Attempt(None, is_empty=True, counts=())

    waiting = Polls(world.db, world.notifier, world.typing)
    await waiting.wait(Viewer(BOB, "PHONE"), 1.0, attempt)
    await world.rooms.join(BOB, room)
    await world.rooms.leave(BOB, other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.wait, Viewer(BOB, "PHONE"), 30.0, attempt)
        await trio.sleep(1)
        before = len(attempts)
        await world.say(ALICE, room, "hello")
        await trio.sleep(1)
        assert len(attempts) == before + 1
        world.notifier.wake([f"room:{other}"])
        await trio.sleep(1)
        assert len(attempts) == before + 1
        nursery.cancel_scope.cancel()


async def test_a_long_poll_is_not_ended_by_another_room(world: World, autojump_clock: MockClock) -> None:
    await world.room(ALICE)
    foreign = await world.room(BOB)
    first = await world.sync(ALICE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.say, BOB, foreign, "not for alice")
        started = trio.current_time()
        await world.sync(ALICE, first["next_batch"], timeout_ms=3_000)
        assert trio.current_time() - started == pytest.approx(3, abs=0.5)


async def test_an_invite_comes_with_stripped_state_that_has_the_create_event(world: World) -> None:
    room = await world.room(name="Den", preset="private_chat")
    before = await world.sync(BOB)
    await world.rooms.invite(ALICE, room, BOB)
    answer = await world.sync(BOB, before["next_batch"])
    events = answer["rooms"]["invite"][room]["invite_state"]["events"]
    state = {(event["type"], event["state_key"]): event for event in events}
    assert {"m.room.create", "m.room.name", "m.room.join_rules"} <= {type for type, _ in state}
    assert state["m.room.member", BOB]["content"]["membership"] == "invite"
    assert state["m.room.member", ALICE]["content"]["membership"] == "join"
    assert all(event.keys() == {"type", "state_key", "sender", "content"} for event in events)
    assert (await world.sync(BOB, answer["next_batch"]))["rooms"]["invite"] == {}
    assert room in (await world.sync(BOB))["rooms"]["invite"]


async def test_a_newly_joined_room_comes_whole(world: World) -> None:
    room = await world.room(name="Den")
    await world.say(ALICE, room, "before bob came")
    first = await world.sync(BOB)
    await world.rooms.join(BOB, room)
    joined = (await world.sync(BOB, first["next_batch"]))["rooms"]["join"][room]
    types = {event["type"] for event in joined["state"]["events"] + joined["timeline"]["events"]}
    assert {"m.room.create", "m.room.name", "m.room.power_levels"} <= types
    assert bodies(joined["timeline"]) == ["before bob came"]


async def test_a_room_that_was_left_shows_nothing_after_the_leave(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    first = await world.sync(BOB)
    await world.say(ALICE, room, "still here")
    await world.rooms.kick(ALICE, room, BOB, "bye")
    await world.say(ALICE, room, "gone")
    answer = await world.sync(BOB, first["next_batch"])
    assert room not in answer["rooms"]["join"]
    left = answer["rooms"]["leave"][room]
    assert bodies(left["timeline"]) == ["still here"]
    assert left["timeline"]["events"][-1]["content"] == {"membership": "leave", "reason": "bye"}
    assert room not in (await world.sync(BOB, answer["next_batch"]))["rooms"]["leave"]
    fresh = await world.sync(BOB, filter={"room": {"include_leave": True}})
    assert bodies(fresh["rooms"]["leave"][room]["timeline"]) == ["still here"]
    assert (await world.sync(BOB))["rooms"]["leave"] == {}


async def test_a_forgotten_room_is_not_shown_even_with_include_leave(world: World) -> None:
    room = await world.room()
    await world.rooms.join(BOB, room)
    await world.rooms.leave(BOB, room)
    await world.rooms.forget(BOB, room)
    assert (await world.sync(BOB, filter={"room": {"include_leave": True}}))["rooms"]["leave"] == {}


async def test_a_rejected_invite_shows_the_leave_and_nothing_of_the_room(world: World) -> None:
    room = await world.room(preset="private_chat", name="secret")
    await world.rooms.invite(ALICE, room, BOB)
    first = await world.sync(BOB)
    await world.rooms.leave(BOB, room)
    left = (await world.sync(BOB, first["next_batch"]))["rooms"]["leave"][room]
    assert left["state"]["events"] == []
    assert [event["state_key"] for event in left["timeline"]["events"]] == [BOB]


async def test_leaving_and_joining_again_between_two_syncs_gives_the_room_whole(world: World) -> None:
    room = await world.room(name="Den")
    await world.rooms.join(BOB, room)
    first = await world.sync(BOB)
    await world.rooms.leave(BOB, room)
    await world.rooms.join(BOB, room)
    answer = await world.sync(BOB, first["next_batch"])
    assert room not in answer["rooms"]["leave"]
    joined = answer["rooms"]["join"][room]
    types = {event["type"] for event in joined["state"]["events"] + joined["timeline"]["events"]}
    assert {"m.room.create", "m.room.name"} <= types


async def test_full_state_repeats_the_state_and_only_the_new_timeline(world: World) -> None:
    room = await world.room(name="Den")
    await world.say(ALICE, room, "old")
    first = await world.sync(ALICE)
    joined = (await world.sync(ALICE, first["next_batch"], full_state=True))["rooms"]["join"][room]
    assert joined["timeline"]["events"] == []
    assert ("m.room.name", "") in state_of(joined["state"])


@pytest.mark.parametrize(
    "token", ["", "x", "s1", "s1_", "s-1_0", "s1_2_3_4", "t1_1", "s99999999999999999999_1", "s१_1", "s1_1\n"]
)
async def test_a_malformed_token_is_refused(world: World, token: str) -> None:
    if not token:
        assert (await world.sync(ALICE))["next_batch"]
        return
    with pytest.raises(MatrixError) as refusal:
        await world.sync(ALICE, token)
    assert (refusal.value.status, refusal.value.errcode) == (400, "M_INVALID_PARAM")


async def test_a_token_from_a_future_that_we_do_not_know_starts_over(world: World) -> None:
    room = await world.room()
    assert room in (await world.sync(ALICE, "s999999_0"))["rooms"]["join"]


async def test_a_soft_failed_event_is_not_shown(world: World) -> None:
    room = await world.room()
    await world.member(DAVE, room, "join")
    before_ban = world.tips(room)
    first = await world.sync(ALICE)
    await world.rooms.ban(ALICE, room, DAVE)
    await world.hear(DAVE, room, "from before the ban", after=before_ban)
    answer = await world.sync(ALICE, first["next_batch"])
    assert bodies(answer["rooms"]["join"][room]["timeline"]) == []
    assert len(answer["rooms"]["join"][room]["timeline"]["events"]) == 1


async def test_a_soft_failed_event_that_becomes_the_state_is_told(world: World) -> None:
    room = await world.room(power_level_content_override={"users": {ALICE: 100, DAVE: 50}})
    for user in (DAVE, ERIN):
        await world.member(user, room, "join")
    fork = world.tips(room)
    world.clock.ms += 10_000
    left = await world.member(DAVE, room, "leave")
    first = await world.sync(ALICE)
    world.clock.ms -= 10_000
    topic = await world.receive(DAVE, room, "m.room.topic", {"topic": "by dave"}, "", after=fork)
    assert world.tips(room) == [left]
    second = await world.sync(ALICE, first["next_batch"])
    assert room not in second["rooms"]["join"]
    await world.hear(ERIN, room, "I saw both", after=[left, topic])
    joined = (await world.sync(ALICE, second["next_batch"]))["rooms"]["join"][room]
    assert bodies(joined["timeline"]) == ["I saw both"]
    told = [*joined["state"]["events"], *joined["timeline"]["events"]]
    assert [event["content"] for event in told if event["event_id"] == topic] == [{"topic": "by dave"}]
    whole = (await world.sync(ALICE))["rooms"]["join"][room]
    everything = state_of(whole["state"]) | {
        (event["type"], event["state_key"]): event
        for event in whole["timeline"]["events"]
        if "state_key" in event
    }
    assert everything["m.room.topic", ""]["event_id"] == topic


async def test_the_winner_of_a_fork_that_no_timeline_event_sets_comes_as_state(world: World) -> None:
    room = await world.room(power_level_content_override={"users": {ALICE: 100, DAVE: 50}})
    await world.member(DAVE, room, "join")
    fork = world.tips(room)
    await world.rooms.send(ALICE, room, "m.room.topic", {"topic": "by alice"}, state_key="")
    first = await world.sync(ALICE, state_name="state_after")
    await world.receive(DAVE, room, "m.room.topic", {"topic": "by dave"}, "", after=fork)
    joined = (await world.sync(ALICE, first["next_batch"], state_name="state_after"))["rooms"]["join"][room]
    current = (await world.sync(CAROL)) and await world.sync(ALICE, state_name="state_after")
    whole = state_of(current["rooms"]["join"][room]["state_after"])
    told = state_of(first["rooms"]["join"][room]["state_after"]) | state_of(joined["state_after"])
    assert told["m.room.topic", ""]["event_id"] == whole["m.room.topic", ""]["event_id"]


async def test_ignored_users_are_not_heard_but_their_state_is_seen(world: World) -> None:
    from minihs.store import account_data

    room = await world.room()
    await world.rooms.join(BOB, room)
    first = await world.sync(ALICE)
    await world.db.write(
        lambda tx: account_data.put(
            tx, ALICE, account_data.IGNORED_USERS, f'{{"ignored_users": {{"{BOB}": {{}}}}}}'
        )
    )
    await world.say(BOB, room, "rubbish")
    await world.rooms.leave(BOB, room)
    timeline = (await world.sync(ALICE, first["next_batch"]))["rooms"]["join"][room]["timeline"]
    assert [event["type"] for event in timeline["events"]] == ["m.room.member"]


async def test_invites_of_ignored_users_and_blocked_invites_are_withheld(world: World) -> None:
    from minihs.store import account_data

    room = await world.room()
    await world.rooms.invite(ALICE, room, BOB)
    assert room in (await world.sync(BOB))["rooms"]["invite"]
    await world.db.write(
        lambda tx: account_data.put(tx, BOB, "m.invite_permission_config", '{"default_action": "block"}')
    )
    assert (await world.sync(BOB))["rooms"]["invite"] == {}


async def test_a_timeline_does_not_hide_a_hole_in_the_history(world: World) -> None:
    room = await world.room()
    first = await world.sync(ALICE)
    await world.say(ALICE, room, "before the hole")
    after = await world.say(ALICE, room, "after the hole")
    await world.say(ALICE, room, "and on")
    nid = world.room_nid(room)

    def make_hole(tx: Tx) -> None:
        tx.execute(
            "INSERT INTO backward_extremities SELECT ?, 999999, event_nid FROM event_ids WHERE event_id = ?",
            (nid, after),
        )

    await world.db.write(make_hole)
    timeline = (await world.sync(ALICE, first["next_batch"]))["rooms"]["join"][room]["timeline"]
    assert bodies(timeline) == ["after the hole", "and on"]
    assert timeline["limited"] is True
