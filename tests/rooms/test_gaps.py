# SPDX-License-Identifier: Apache-2.0
"""Gaps in what we have of a room: filled from other servers as far as they let us, at bounded cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from minihs.matrix.event_format import MAX_PREV_EVENTS
from minihs.matrix.federation_errors import RemoteProtocolError, Unreachable
from minihs.rooms import authorise, backfill, gap_state, gaps
from minihs.store import rooms
from minihs.store.events import Outcome
from tests.rooms import invariants
from tests.rooms.forge import Forger, inbox_of, rows_of
from tests.rooms.hostile_paths import EVE, Scene, scenes
from tests.rooms.world import state_of, stored, timeline_of, worlds

type JsonObject = dict[str, Any]


def chain(scene: Scene, length: int) -> list[tuple[JsonObject, str]]:
    made: list[tuple[JsonObject, str]] = []
    for _ in range(length):
        made.append(scene.good(prev=[made[-1][1]] if made else None))
    return made


def telling(scene: Scene, made: list[tuple[JsonObject, str]], at_once: int) -> None:
    """e.test answers get_missing_events honestly, so many events at a time."""
    ids = [event_id for _, event_id in made]
    scene.answer_honestly({event_id: pdu for pdu, event_id in made})

    def missing(room_id: str, earliest: list[str], latest: list[str]) -> list[JsonObject]:
        end = min((ids.index(each) for each in latest if each in ids), default=0)
        return [pdu for pdu, _ in made[max(0, end - at_once) : end]]

    scene.answers["get_missing_events"] = missing


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest.mark.parametrize("length", [2, 20, 150])
async def test_a_gap_is_walked_back_until_it_connects(tmp_path: Path, version: str, length: int) -> None:
    async with scenes(tmp_path, version) as scene:
        made = chain(scene, length)
        telling(scene, made, 20)
        await scene.world.send("e.test", "v.test", [made[-1][0]])
        assert timeline_of(scene.victim, scene.room_id)[-length:] == [event_id for _, event_id in made]
        invariants.check(scene.victim, scene.room_id)


async def test_a_gap_that_is_too_long_stays_and_can_be_paged_into(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        made = chain(scene, 40)
        ids = [event_id for _, event_id in made]
        telling(scene, made, 2)  # in ten rounds no more than twenty
        before = timeline_of(scene.victim, scene.room_id)
        await scene.world.send("e.test", "v.test", [made[-1][0]])
        shown = timeline_of(scene.victim, scene.room_id)
        got = [event_id for event_id in shown if event_id in ids]
        assert got == ids[-len(got) :]
        assert 15 < len(got) < 25
        invariants.check(scene.victim, scene.room_id)
        nid = scene.victim.parts.head(scene.room_id).room_nid
        missing = [row[0] for row in rooms.backward_extremities(scene.victim.parts.db.read, nid)]
        assert ids[-len(got) - 1] in missing

        def history(room_id: str, wanted: list[str], limit: int) -> list[JsonObject]:
            end = max((ids.index(each) for each in wanted if each in ids), default=-1)
            return [pdu for pdu, _ in reversed(made[max(0, end + 1 - limit) : end + 1])]

        scene.answers["backfill"] = history
        for _ in range(10):
            if not await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10):
                break
        assert timeline_of(scene.victim, scene.room_id) == [*before, *ids]
        invariants.check(scene.victim, scene.room_id)


async def test_another_resident_is_asked_if_the_sender_does_not_answer(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        a, b, c = (world.servers[name] for name in ("a.test", "b.test", "c.test"))
        alice, bob, carol = "@alice:a.test", "@bob:b.test", "@carol:c.test"
        room_id = await a.create(alice, {"preset": "public_chat"})
        for server, user in ((b, bob), (c, carol)):
            await server.join(user, room_id, via=["a.test"])
            await world.deliver()
        sent = [await a.send(alice, room_id, "m.room.message", {"n": n}) for n in range(30)]
        sent.append(await a.send(alice, room_id, "m.room.topic", {"topic": "x"}, state_key=""))
        sent.append(await a.send(alice, room_id, "m.room.message", {}))
        await world.deliver_between("a.test", "c.test")
        await world.rest()

        async def nothing(honest: Any, *args: Any) -> Any:
            raise Unreachable("a.test", "never answers")

        for verb in ("get_missing_events", "get_state_ids", "get_event", "get_event_auth"):
            world.hooks["a.test", verb] = nothing
        newest = a.parts.graph.event(sent[-1])
        assert newest is not None
        await world.send("a.test", "b.test", [newest.json])
        assert timeline_of(b, room_id)[-len(sent) :] == sent
        assert state_of(b, room_id) == state_of(c, room_id)


async def test_events_that_nobody_asked_for_are_not_taken_from_an_answer(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        parent, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        stray, stray_id = scene.good()
        scene.answer_honestly({})
        scene.answers["get_missing_events"] = [stray, parent]
        await scene.world.send("e.test", "v.test", [child])
        assert {parent_id, child_id} <= rows_of(scene.victim).keys()
        assert stray_id not in rows_of(scene.victim)


async def test_one_pdu_has_no_more_than_so_many_states_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event with twenty parents that nobody has, each with twenty more: that could go on for ever."""
    monkeypatch.setattr(gaps, "MAX_STATES", 5)
    async with scenes(tmp_path, "12") as scene:
        ghosts = [scene.good() for _ in range(20)]
        child, child_id = scene.good(prev=[event_id for _, event_id in ghosts])
        scene.answer_honestly({event_id: pdu for pdu, event_id in ghosts})
        scene.world.asked.clear()
        await scene.world.send("e.test", "v.test", [child])
        assert sum(verb == "get_state_ids" for _, _, verb in scene.world.asked) == 5
        assert inbox_of(scene.victim) == {child_id: 1}


async def test_asking_for_what_one_pdu_lacks_ends_some_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scenes(tmp_path, "12") as scene:
        made = chain(scene, 100)
        telling(scene, made, 1)
        honest = scene.world.hooks["e.test", "get_missing_events"]

        async def slowly(*args: Any) -> Any:
            await trio.sleep(50)
            return await honest(*args)

        scene.world.hooks["e.test", "get_missing_events"] = slowly
        started = trio.current_time()
        await scene.victim.transactions.receive("e.test", "t", {"pdus": [made[-1][0]]})
        while scene.victim.parts.tasks.any_busy():  # noqa: ASYNC110 - there is no event to wait for: the world is asked whether it is done
            await trio.sleep(1)
        assert trio.current_time() - started < gaps.MAX_SECONDS + 60
        assert inbox_of(scene.victim) == {made[-1][1]: 1}


@pytest.mark.parametrize("given_by", ["event_auth", "event", "nobody"])
async def test_auth_events_that_are_missing_are_asked_for(tmp_path: Path, given_by: str) -> None:
    async with scenes(tmp_path, "12") as scene:
        levels = scene.forger.state["m.room.power_levels", ""]
        draft = scene.forger.draft("m.room.member", EVE, {"membership": "join", "x": 1}, EVE)
        member = scene.forger.seal(draft)
        member_id = scene.forger.id_of(member)
        said, said_id = scene.good(auth=[levels, member_id])

        def refuse(*args: str) -> Any:
            raise RemoteProtocolError("e.test", "says nothing that makes sense")

        scene.answer_honestly({member_id: member} if given_by == "event" else {})
        scene.answers["get_event_auth"] = [member] if given_by == "event_auth" else refuse
        await scene.world.send("e.test", "v.test", [said])
        if given_by == "nobody":  # which is no reason to reject it
            assert inbox_of(scene.victim) == {said_id: 1}
            assert said_id not in rows_of(scene.victim)
        else:
            assert rows_of(scene.victim)[said_id] == Outcome.ACCEPTED
            kept = stored(scene.victim, member_id)
            assert kept is not None
            assert kept.outlier


@pytest.mark.parametrize("single", [0, 1000])
async def test_the_state_at_a_gap_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: int
) -> None:
    """While we were cut off others joined and left, and only the newest event comes."""
    monkeypatch.setattr(gap_state, "MAX_SINGLE_FETCHES", single)
    monkeypatch.setattr(gaps, "MAX_ROUNDS", 1)
    async with worlds(tmp_path, "a.test", "b.test") as world:
        a, b = world.servers["a.test"], world.servers["b.test"]
        alice, bob = "@alice:a.test", "@bob:b.test"
        room_id = await a.create(alice, {"preset": "public_chat"})
        await b.join(bob, room_id, via=["a.test"])
        await world.deliver()
        for n in range(30):
            await a.join(f"@u{n}:a.test", room_id)
            await a.send(f"@u{n}:a.test", room_id, "m.room.message", {})
        await a.leave("@u7:a.test", room_id)
        newest = await a.send(alice, room_id, "m.room.message", {})
        world.sent_up_to["a.test", "b.test"] = 10**9
        event = a.parts.graph.event(newest)
        assert event is not None
        await world.send("a.test", "b.test", [event.json])
        assert state_of(b, room_id) == state_of(a, room_id)
        assert timeline_of(b, room_id)[-1] == newest
        invariants.check(b, room_id)


LIES: dict[str, Any] = {
    "too many": lambda ids: (ids * 100, []),
    "an event that it does not have": lambda ids: ([*ids, "$nowhere"], []),
    "none": lambda ids: ([], []),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_state_that_can_not_be_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(gap_state, "MAX_STATE_EVENTS", 500)
    async with scenes(tmp_path, "12") as scene:
        ghost, ghost_id = scene.good()
        child, child_id = scene.good(prev=[ghost_id])
        scene.answer_honestly({ghost_id: ghost})
        scene.answers["get_state_ids"] = LIES[name](scene.forger.state_ids_answer()[0])
        before = state_of(scene.victim, scene.room_id)
        await scene.world.send("e.test", "v.test", [child])
        assert inbox_of(scene.victim) == {child_id: 1}
        assert state_of(scene.victim, scene.room_id) == before


async def test_a_whole_state_that_is_too_large_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gap_state, "MAX_STATE_EVENTS", 20)
    monkeypatch.setattr(gap_state, "MAX_SINGLE_FETCHES", 0)
    async with scenes(tmp_path, "12") as scene:
        ghost, ghost_id = scene.good()
        child, child_id = scene.good(prev=[ghost_id])
        scene.answer_honestly({ghost_id: ghost})
        ids = scene.forger.state_ids_answer()[0]
        scene.answers["get_state_ids"] = ([*ids, "$x"], [])
        scene.answers["get_state"] = ([{}] * 25, [])
        await scene.world.send("e.test", "v.test", [child])
        assert inbox_of(scene.victim) == {child_id: 1}


# -- backfill --------------------------------------------------------------------------------------


async def test_history_is_asked_of_the_next_server_if_one_has_none(tmp_path: Path) -> None:
    async with worlds(tmp_path, "a.test", "b.test", "c.test") as world:
        a, b, c = (world.servers[name] for name in ("a.test", "b.test", "c.test"))
        alice, bob, carol = "@alice:a.test", "@bob:b.test", "@carol:c.test"
        room_id = await a.create(alice, {"preset": "public_chat"})
        await b.join(bob, room_id, via=["a.test"])
        await world.deliver()
        sent = [await a.send(alice, room_id, "m.room.message", {"n": n}) for n in range(5)]
        await world.deliver()
        await c.join(carol, room_id, via=["a.test"])
        await world.deliver()

        async def refuse(honest: Any, *args: Any) -> Any:
            raise RemoteProtocolError("a.test", "says nothing that makes sense")

        world.hooks["a.test", "backfill"] = refuse
        while await c.backfill(room_id, before=(10**9, 0), limit=3):
            pass
        assert [each for each in timeline_of(c, room_id) if each in sent] == sent
        world.hooks["b.test", "backfill"] = refuse
        assert not await c.backfill(room_id, before=(10**9, 0), limit=3)
        assert not await c.backfill("!unknown:a.test", before=(10**9, 0), limit=3)


async def test_history_that_belongs_nowhere_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an answer to /backfill counts what leads back from what we have."""
    async with scenes(tmp_path, "12") as scene:
        ghost, ghost_id = scene.good()
        child, child_id = scene.good(prev=[ghost_id])
        scene.answer_honestly({ghost_id: ghost})
        await scene.world.send("e.test", "v.test", [child])
        assert child_id in timeline_of(scene.victim, scene.room_id)
        stray, stray_id = scene.good()
        scene.answers["backfill"] = [stray, ghost]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
        shown = timeline_of(scene.victim, scene.room_id)
        assert shown.index(ghost_id) < shown.index(child_id)
        assert stray_id not in rows_of(scene.victim)
        assert set(scene.victim.parts.head(scene.room_id).tips) == {child_id}
        assert not await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)


async def test_history_that_fails_the_rules_does_not_end_paging(tmp_path: Path) -> None:
    """A page of nothing but rejected events: what lies before them is still to be reached."""
    async with scenes(tmp_path, "12") as scene:
        oldest, oldest_id = scene.good()
        bad: list[tuple[JsonObject, str]] = []
        for _ in range(5):
            prev = [bad[-1][1] if bad else oldest_id]
            pdu = scene.forger.seal(scene.forger.draft("m.room.topic", EVE, {"topic": "x"}, "", prev=prev))
            bad.append((pdu, scene.forger.id_of(pdu)))
        child, child_id = scene.good(prev=[bad[-1][1]])
        known = {event_id: pdu for pdu, event_id in [*bad, (oldest, oldest_id)]}
        scene.answer_honestly(known)
        await scene.world.send("e.test", "v.test", [child])
        scene.answers["backfill"] = [pdu for pdu, _ in reversed(bad)]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=5)
        stored_now = rows_of(scene.victim)
        assert all(stored_now[event_id] == Outcome.REJECTED for _, event_id in bad)
        scene.answers["backfill"] = [oldest]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=5)
        shown = timeline_of(scene.victim, scene.room_id)
        assert shown.index(oldest_id) < shown.index(child_id)
        invariants.check(scene.victim, scene.room_id)


async def test_one_page_of_history_has_no_more_than_so_many_states_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "MAX_STATES", 2)
    async with scenes(tmp_path, "12") as scene:
        ghosts = [scene.good(prev=[f"$before{n}"]) for n in range(5)]
        root, root_id = scene.good(prev=[event_id for _, event_id in ghosts])
        child, _ = scene.good(prev=[root_id])
        scene.answer_honestly({root_id: root})
        await scene.world.send("e.test", "v.test", [child])
        scene.world.asked.clear()
        scene.answers["backfill"] = [root, *(pdu for pdu, _ in ghosts)]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
        assert sum(verb == "get_state_ids" for _, _, verb in scene.world.asked) == 2
        assert sum(event_id in rows_of(scene.victim) for _, event_id in ghosts) == 2


@pytest.mark.parametrize("version", ["2", "12"])
async def test_events_of_history_may_have_more_parents_than_those_of_today(
    tmp_path: Path, version: str
) -> None:
    """They were made before there was a limit. By no other way they are taken."""
    async with scenes(tmp_path, version) as scene:
        parents = [scene.good() for _ in range(MAX_PREV_EVENTS + 1)]
        tied, tied_id = scene.good(prev=[event_id for _, event_id in parents])
        root, root_id = scene.good(prev=[tied_id])
        child, child_id = scene.good(prev=[root_id])
        scene.answer_honestly({root_id: root})
        scene.answers["get_missing_events"] = [tied, root]
        await scene.world.send("e.test", "v.test", [tied, child])
        assert tied_id not in rows_of(scene.victim)
        assert child_id in timeline_of(scene.victim, scene.room_id)
        scene.answers["backfill"] = [root, tied, *(pdu for pdu, _ in parents)]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=30)
        shown = timeline_of(scene.victim, scene.room_id)
        assert shown.index(parents[-1][1]) < shown.index(tied_id) < shown.index(root_id)
        assert rows_of(scene.victim)[tied_id] == Outcome.ACCEPTED
        invariants.check(scene.victim, scene.room_id)


async def test_one_page_of_history_has_no_more_than_so_many_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "MAX_REFERENCES", 5)
    async with scenes(tmp_path, "12") as scene:
        past = chain(scene, 6)
        root, root_id = scene.good(prev=[past[-1][1]])
        child, _ = scene.good(prev=[root_id])
        scene.answer_honestly({root_id: root})
        await scene.world.send("e.test", "v.test", [child])
        scene.answers["backfill"] = [root, *(pdu for pdu, _ in past)]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
        assert [event_id in rows_of(scene.victim) for _, event_id in past] == [True] * 5 + [False]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
        assert all(event_id in rows_of(scene.victim) for _, event_id in past)


async def test_history_names_no_other_room_and_comes_with_its_auth_events(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        there = sorted(scene.victim.parts.head(scene.other_room).tips)
        foreign, foreign_id = scene.good(prev=there)
        member = scene.forger.seal(
            scene.forger.draft("m.room.member", EVE, {"membership": "join", "x": 1}, EVE)
        )
        member_id = scene.forger.id_of(member)
        state = scene.forger.state
        auth = [state["m.room.power_levels", ""], member_id]
        late, late_id = scene.good(auth=auth)
        orphan, orphan_id = scene.good(auth=[state["m.room.power_levels", ""], "$never"])
        root, root_id = scene.good(prev=[foreign_id, late_id, orphan_id])
        child, _ = scene.good(prev=[root_id])
        scene.answer_honestly({root_id: root})
        await scene.world.send("e.test", "v.test", [child])
        scene.answers["backfill"] = [root, foreign, late, orphan]
        scene.answers["get_event_auth"] = [member]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
        found = rows_of(scene.victim)
        assert foreign_id not in found
        assert orphan_id not in found
        assert found[late_id] == Outcome.ACCEPTED
        kept = stored(scene.victim, member_id)
        assert kept is not None
        assert kept.outlier


async def test_an_event_of_the_past_that_crashes_its_step_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenes(tmp_path, "12") as scene:
        scene.world.loud = True
        one, one_id = scene.good()
        two, two_id = scene.good()
        child, _ = scene.good(prev=[one_id, two_id])
        scene.answer_honestly({one_id: one, two_id: two})
        await scene.world.send("e.test", "v.test", [child])
        honest = authorise.judge

        def crash(graph: Any, head: Any, event: Any, *args: Any) -> Any:
            if event.event_id == one_id:
                raise RuntimeError("poison")
            return honest(graph, head, event, *args)

        monkeypatch.setattr(backfill, "judge", crash)
        scene.answers["backfill"] = [one, two]
        assert await scene.victim.backfill(scene.room_id, before=(10**9, 0), limit=10)
        assert two_id in timeline_of(scene.victim, scene.room_id)


async def test_what_was_built_on_a_rejected_event_that_nobody_shows_keeps_nothing_out(tmp_path: Path) -> None:
    """Eve's server sends a.test an event that is rejected and one built on it, and b.test neither."""
    async with worlds(tmp_path, "a.test", "b.test", "e.test") as world:
        a, b, e = (world.servers[name] for name in ("a.test", "b.test", "e.test"))
        alice, bob = "@alice:a.test", "@bob:b.test"
        room_id = await a.create(alice, {"preset": "public_chat"})
        for server, user in ((b, bob), (e, EVE)):
            await server.join(user, room_id, via=["a.test"])
            await world.deliver()
        forger = Forger(world, "e.test", "a.test", room_id)
        refused = forger.seal(forger.draft("m.room.topic", EVE, {"topic": "mine"}, ""))
        built = forger.seal(forger.draft("m.room.message", EVE, {}, prev=[forger.id_of(refused)]))
        await world.send("e.test", "a.test", [refused, built])
        assert rows_of(a)[forger.id_of(refused)] == Outcome.REJECTED
        assert set(a.parts.head(room_id).tips) == {forger.id_of(built)}
        world.cut.add(frozenset(("b.test", "e.test")))
        said = [await a.send(alice, room_id, "m.room.message", {"n": n}) for n in range(3)]
        await world.deliver()
        assert timeline_of(b, room_id)[-3:] == said
        assert inbox_of(b) == {}
        assert state_of(b, room_id) == state_of(a, room_id)


@pytest.mark.parametrize("version", ["10", "12"])
async def test_history_is_read_on_behind_an_event_that_nobody_shows(tmp_path: Path, version: str) -> None:
    """It was rejected by all; what was said before it is there to be asked for nevertheless."""
    async with worlds(tmp_path, "a.test", "b.test", "c.test", "e.test") as world:
        a, b, c, e = (world.servers[name] for name in ("a.test", "b.test", "c.test", "e.test"))
        alice, bob = "@alice:a.test", "@bob:b.test"
        room_id = await a.create(alice, {"preset": "public_chat", "room_version": version})
        for server, user in ((e, EVE), (c, "@carol:c.test")):
            await server.join(user, room_id, via=["a.test"])
            await world.deliver()
        said = [await a.send(alice, room_id, "m.room.message", {"n": n}) for n in range(5)]
        forger = Forger(world, "e.test", "a.test", room_id)
        refused = forger.seal(forger.draft("m.room.topic", EVE, {"topic": "mine"}, ""))
        built = forger.seal(forger.draft("m.room.message", EVE, {}, prev=[forger.id_of(refused)]))
        await world.send("e.test", "a.test", [refused, built])
        said += [forger.id_of(built), await a.send(alice, room_id, "m.room.message", {"n": 5})]
        world.cut.add(frozenset(("b.test", "e.test")))
        await b.join(bob, room_id, via=["a.test"])
        await world.deliver()
        for _ in range(20):
            if not await b.backfill(room_id, before=(10**9, 0), limit=3):
                break
        whole = timeline_of(b, room_id)
        assert [event_id for event_id in whole if event_id in said] == said
        assert len(whole) == len(timeline_of(a, room_id))
        nid = b.parts.head(room_id).room_nid
        assert rooms.backward_extremities(b.parts.db.read, nid) == []
        invariants.check(b, room_id)


async def test_history_is_not_skipped_while_those_who_might_show_it_are_away(tmp_path: Path) -> None:
    """Eve's server leaves an event out of its answer, and would have us go on far behind it."""
    async with worlds(tmp_path, "a.test", "b.test", "c.test", "e.test") as world:
        a, b, c, e = (world.servers[name] for name in ("a.test", "b.test", "c.test", "e.test"))
        alice = "@alice:a.test"
        room_id = await a.create(alice, {"preset": "public_chat"})
        for server, user in ((e, EVE), (c, "@carol:c.test")):
            await server.join(user, room_id, via=["a.test"])
            await world.deliver()
        said = [await a.send(alice, room_id, "m.room.message", {"n": n}) for n in range(9)]
        await world.deliver()
        await b.join("@bob:b.test", room_id, via=["a.test"])

        async def less(honest: Any, asker: str, room: str, event_ids: list[str], limit: int) -> Any:
            return [e.parts.graph.event(each).json for each in said[:3]]  # type: ignore[union-attr]  # all are there

        world.hooks["e.test", "backfill"] = less
        for away in ("a.test", "c.test"):
            world.cut.add(frozenset(("b.test", away)))
        assert not await b.backfill(room_id, before=(10**9, 0), limit=3)
        world.cut.clear()
        for _ in range(20):
            if not await b.backfill(room_id, before=(10**9, 0), limit=3):
                break
        assert [event_id for event_id in timeline_of(b, room_id) if event_id in said] == said


async def test_an_auth_event_that_rests_on_what_is_not_here(tmp_path: Path) -> None:
    """Who sent the event does not know it itself, so its auth chain is not to be had: only its auth events
    and theirs."""
    async with scenes(tmp_path, "12") as scene:
        e, new = scene.world.servers["e.test"], "@new:e.test"
        await e.join(new, scene.room_id, via=[])
        joined = e.parts.head(scene.room_id).state(e.parts.graph).get(("m.room.member", new))
        assert joined is not None
        named_id = await e.send(
            new, scene.room_id, "m.room.member", {"membership": "join", "displayname": "New"}, state_key=new
        )
        named = e.parts.graph.event(named_id)
        assert named is not None
        assert joined.event_id in named.auth_events
        auth = [each for each in named.auth_events if each != joined.event_id]
        pdu = scene.forger.seal(scene.forger.draft("m.room.message", new, {}, auth=[*auth, named_id]))
        event_id = scene.forger.id_of(pdu)
        scene.answer_honestly({named_id: named.json})

        def chain_of(_room_id: str, asked: str) -> Any:
            if asked != named_id:
                raise Unreachable("e.test", "does not know it")
            return [joined.json]

        scene.answers["get_event_auth"] = chain_of
        await scene.world.send("e.test", "v.test", [pdu])
        assert inbox_of(scene.victim) == {}
        assert event_id in rows_of(scene.victim)
