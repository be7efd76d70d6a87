# SPDX-License-Identifier: Apache-2.0
"""A server that answers slowly, or never, keeps nobody of ours from talking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from minihs.matrix.errors import MatrixError
from minihs.rooms.head import TIE_TYPE
from minihs.rooms.tasks import RoomTasks
from minihs.rooms.ties import MAX_ENDS
from minihs.store.events import Outcome
from tests.rooms.forge import inbox_of, rows_of
from tests.rooms.hostile_paths import ALICE, VIC, Scene, scenes
from tests.rooms.world import membership_of, stored, timeline_of, worlds


class Slow:
    """A hook that answers only when it is let go."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = trio.Event()
        self.go = trio.Event()

    async def __call__(self, honest: Any, asker: str, *args: Any) -> Any:
        self.asked.set()
        await self.go.wait()
        return self.answer


async def test_our_users_talk_while_a_gap_is_being_filled(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        parent, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        other, other_id = scene.good()
        scene.answer_honestly({})
        slow = scene.world.hooks["e.test", "get_missing_events"] = Slow([parent])
        v = scene.victim
        await v.transactions.receive("e.test", "t", {"pdus": [child, other]})
        await slow.asked.wait()
        assert rows_of(v)[other_id] == Outcome.ACCEPTED  # what needs no asking is not kept waiting
        with trio.fail_after(5):
            mine = [await v.send(VIC, scene.room_id, "m.room.message", {"n": n}) for n in range(3)]
            await v.send(VIC, scene.room_id, "m.room.message", {"n": 3}, device_id="D", txn_id="t")
            await v.join("@second:v.test", scene.room_id)
            await v.leave("@second:v.test", scene.room_id)
        assert child_id not in rows_of(v)
        slow.go.set()
        await scene.world.rest()
        assert rows_of(v)[child_id] == Outcome.ACCEPTED
        assert set(mine) <= set(timeline_of(v, scene.room_id))
        assert len(v.parts.head(scene.room_id).tips) == 2
        after = await v.send(VIC, scene.room_id, "m.room.message", {})
        assert set(v.parts.head(scene.room_id).tips) == {after}
        event = v.parts.graph.event(after)
        assert event is not None
        assert child_id in event.prev_events


async def test_the_last_of_us_leaves_while_a_gap_is_being_filled(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        parent, parent_id = scene.good()
        child, _ = scene.good(prev=[parent_id])
        scene.answer_honestly({})
        slow = scene.world.hooks["e.test", "get_missing_events"] = Slow([parent])
        await scene.victim.transactions.receive("e.test", "t", {"pdus": [child]})
        await slow.asked.wait()
        await scene.victim.leave(VIC, scene.room_id)
        before = rows_of(scene.victim)
        slow.go.set()
        await scene.world.rest()
        assert rows_of(scene.victim) == before
        assert inbox_of(scene.victim) == {}


async def test_a_stop_while_a_gap_is_being_filled_loses_nothing(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        parent, parent_id = scene.good()
        child, child_id = scene.good(prev=[parent_id])
        scene.answer_honestly({})
        slow = scene.world.hooks["e.test", "get_missing_events"] = Slow([parent])
        await scene.victim.transactions.receive("e.test", "t", {"pdus": [child]})
        await slow.asked.wait()
        await scene.world.restart("v.test")
        slow.go.set()
        await scene.world.rest()
        assert timeline_of(scene.victim, scene.room_id)[-2:] == [parent_id, child_id]


async def test_our_users_talk_while_an_invited_server_takes_its_time(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        slow = scene.world.hooks["e.test", "invite"] = Slow({"signatures": {"e.test": {"ed25519:1": "x"}}})
        done: list[str] = []

        async def invite() -> None:
            done.append(await scene.victim.invite(VIC, scene.room_id, "@guest:e.test"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(invite)
            await slow.asked.wait()
            with trio.fail_after(5):
                mine = await scene.victim.send(VIC, scene.room_id, "m.room.message", {})
            assert membership_of(scene.victim, scene.room_id, "@guest:e.test") is None
            slow.go.set()
        assert set(scene.victim.parts.head(scene.room_id).tips) == {mine, done[0]}
        assert membership_of(scene.victim, scene.room_id, "@guest:e.test") == "invite"


async def test_an_invite_whose_client_hung_up_is_carried_out(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        slow = scene.world.hooks["e.test", "invite"] = Slow({"signatures": {"e.test": {"ed25519:1": "x"}}})
        with trio.move_on_after(0.05):
            await scene.victim.invite(VIC, scene.room_id, "@guest:e.test")
        assert slow.asked.is_set()
        slow.go.set()
        await scene.world.rest()
        assert membership_of(scene.victim, scene.room_id, "@guest:e.test") == "invite"


async def test_a_join_whose_client_hung_up_is_carried_out(tmp_path: Path) -> None:
    async with worlds(tmp_path, "v.test", "h.test") as world:
        v, h = world.servers["v.test"], world.servers["h.test"]
        room_id = await h.create(ALICE, {"preset": "public_chat"})
        go = trio.Event()

        async def slowly(honest: Any, *args: Any) -> Any:
            await go.wait()
            return await honest()

        world.hooks["h.test", "make_join"] = slowly
        with trio.move_on_after(0.05):
            await v.join(VIC, room_id, via=["h.test"])
        go.set()
        await world.rest()
        assert membership_of(v, room_id, VIC) == "join"


# -- ends that pile up -----------------------------------------------------------------------------


def _fork(scene: Scene, count: int) -> tuple[list[Any], list[str]]:
    start = scene.forger.tips
    made = [scene.good(prev=start) for _ in range(count)]
    return [pdu for pdu, _ in made], [event_id for _, event_id in made]


@pytest.mark.parametrize("count", [MAX_ENDS, MAX_ENDS + 1, 50])
async def test_the_ends_of_a_room_are_tied_together_when_there_are_too_many(
    tmp_path: Path, count: int
) -> None:
    async with scenes(tmp_path, "12") as scene:
        pdus, ids = _fork(scene, count)
        await scene.world.send("e.test", "v.test", pdus)
        tips = scene.victim.parts.head(scene.room_id).tips
        if count <= MAX_ENDS:
            assert set(tips) == set(ids)
            return
        assert len(tips) <= MAX_ENDS
        ties = [event_id for event_id in tips if event_id not in ids]
        tie = stored(scene.victim, ties[-1])
        assert tie is not None
        assert (tie.event.type, tie.event.sender) == (TIE_TYPE, VIC)
        assert len(tie.event.prev_events) == 20


async def test_ends_stay_as_they_are_where_none_of_us_may_tie_them(tmp_path: Path) -> None:
    async with scenes(tmp_path, "12") as scene:
        h = scene.world.servers["h.test"]
        levels = h.parts.graph.event(scene.forger.state["m.room.power_levels", ""])
        assert levels is not None
        quiet = {**levels.content, "events": {TIE_TYPE: 50}}
        await h.send(ALICE, scene.room_id, "m.room.power_levels", quiet, state_key="")
        await scene.world.deliver()
        pdus, ids = _fork(scene, MAX_ENDS + 5)
        await scene.world.send("e.test", "v.test", pdus)
        assert set(scene.victim.parts.head(scene.room_id).tips) == set(ids)
        mine = await scene.victim.send(VIC, scene.room_id, "m.room.message", {})
        event = scene.victim.parts.graph.event(mine)
        assert event is not None
        assert len(event.prev_events) == 20
        assert len(scene.victim.parts.head(scene.room_id).tips) == 6


# -- the queue itself ------------------------------------------------------------------------------


async def test_jobs_of_a_room_run_one_after_another_and_those_between_while_it_asks() -> None:
    order: list[str] = []
    async with trio.open_nursery() as nursery:
        tasks = RoomTasks(nursery)
        go = trio.Event()

        async def asking() -> None:
            order.append("asks")
            await tasks.aside("!r", go.wait)
            order.append("has its answer")

        async def job(name: str) -> str:
            order.append(name)
            await trio.lowlevel.checkpoint()
            if name == "fails":
                raise MatrixError(400, "M_UNKNOWN", "no")
            return name

        async def run(name: str, between: bool) -> None:
            try:
                assert await tasks.run("!r", lambda: job(name), between=between) == name
            except MatrixError:
                assert name == "fails"

        tasks.start("!r", asking)
        await trio.testing.wait_all_tasks_blocked()
        for name, between in (("later", False), ("between", True), ("fails", True)):
            nursery.start_soon(run, name, between)
            await trio.testing.wait_all_tasks_blocked()
        assert tasks.is_busy("!r")
        assert order == ["asks", "between", "fails"]
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["asks", "between", "fails", "has its answer", "later"]
        assert not tasks.any_busy()


async def test_jobs_of_one_kind_that_wait_are_done_in_one_go() -> None:
    calls: list[list[str]] = []
    heard: list[tuple[str, str]] = []
    async with trio.open_nursery() as nursery:
        tasks = RoomTasks(nursery)
        go = trio.Event()

        async def together(wishes: Sequence[str]) -> list[str | Exception]:
            calls.append(list(wishes))
            await trio.lowlevel.checkpoint()
            if "break" in wishes:
                raise MatrixError(400, "M_UNKNOWN", "broken")
            no = MatrixError(400, "M_UNKNOWN", "no")
            return [no if wish == "fail" else wish.upper() for wish in wishes]

        async def other(wishes: Sequence[str]) -> list[str | Exception]:
            return await together(wishes)

        async def ask(wish: str) -> None:
            kind = other if wish == "other" else together
            try:
                heard.append((wish, await tasks.run_together("!r", kind, wish)))
            except MatrixError as error:
                heard.append((wish, error.message))

        async def alone() -> list[str]:
            calls.append(["alone"])
            await trio.lowlevel.checkpoint()
            return []

        tasks.start("!r", go.wait)
        for wish in ("a", "fail", "b", "alone", "c", "other", "d", "break"):
            if wish == "alone":
                tasks.start("!r", alone)
            else:
                nursery.start_soon(ask, wish)
            await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert calls == [["a", "fail", "b"], ["alone"], ["c"], ["other"], ["d", "break"], ["d"], ["break"]]
    assert dict(heard) == {
        "a": "A",
        "fail": "no",
        "b": "B",
        "c": "C",
        "other": "OTHER",
        "d": "D",  # nothing is wrong with that
        "break": "broken",
    }


async def test_a_job_that_does_not_share_is_answered_before_the_next_is_done() -> None:
    async with trio.open_nursery() as nursery:
        tasks = RoomTasks(nursery)
        go, answers = trio.Event(), [trio.Event(), trio.Event()]
        done: list[int] = []
        shares = True

        async def together(wishes: Sequence[int]) -> list[Exception | None]:
            for wish in wishes:
                await answers[wish].wait()
            return [None for _ in wishes]

        async def ask(wish: int) -> None:
            await tasks.run_together("!r", together, wish, shares=lambda: shares)
            done.append(wish)

        tasks.start("!r", go.wait)
        for wish in range(2):
            nursery.start_soon(ask, wish)
            await trio.testing.wait_all_tasks_blocked()
        shares = False  # as they are when it is their turn
        go.set()
        answers[0].set()
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0]
        answers[1].set()


async def test_a_room_goes_on_if_it_can_not_be_told_whether_jobs_share() -> None:
    async with trio.open_nursery() as nursery:
        tasks = RoomTasks(nursery)
        heard: dict[str, str] = {}
        go = trio.Event()

        async def together(wishes: Sequence[str]) -> list[str | Exception]:
            return list(wishes)

        async def ask(wish: str) -> None:
            try:
                heard[wish] = await tasks.run_together("!r", together, wish, shares=lambda: bool(1 / 0))
            except ZeroDivisionError:
                heard[wish] = "failed"

        tasks.start("!r", go.wait)
        for wish in ("a", "b"):
            nursery.start_soon(ask, wish)
            await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert heard == {"a": "failed", "b": "b"}


async def test_what_fails_when_its_caller_is_gone_is_logged() -> None:
    async def together(wishes: Sequence[str]) -> list[str | Exception]:
        return [KeyError(wish) for wish in wishes]

    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            tasks = RoomTasks(nursery)
            go = trio.Event()
            tasks.start("!r", go.wait)
            async with trio.open_nursery() as callers:
                for wish in ("a", "b"):
                    callers.start_soon(tasks.run_together, "!r", together, wish)
                    await trio.testing.wait_all_tasks_blocked()
                callers.cancel_scope.cancel()
            go.set()
    assert [str(log["exc_info"]) for log in logs if log["log_level"] == "error"] == ["'a'", "'b'"]


async def test_what_goes_wrong_aside_is_raised_there() -> None:
    async with trio.open_nursery() as nursery:
        tasks = RoomTasks(nursery)

        async def fails() -> None:
            await trio.lowlevel.checkpoint()
            raise MatrixError(404, "M_NOT_FOUND", "no")

        async def job() -> str:
            with pytest.raises(MatrixError):
                await tasks.aside("!r", fails)
            return await tasks.aside("!r", nested)

        async def nested() -> str:
            return await tasks.aside("!r", lambda: tasks.run("!other", answer))

        async def answer() -> str:
            await trio.lowlevel.checkpoint()
            return "42"

        assert await tasks.run("!r", job) == "42"
        assert await tasks.aside("!nobody", answer) == "42"


async def test_jobs_that_wait_when_the_server_stops_are_told_so() -> None:
    errors: list[MatrixError] = []

    async def ask(tasks: RoomTasks) -> None:
        with pytest.raises(MatrixError) as stopped:
            await tasks.run("!r", trio.sleep_forever)
        errors.append(stopped.value)

    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        tasks = RoomTasks(inner)
        for _ in range(2):
            outer.start_soon(ask, tasks)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert [(error.status, error.errcode) for error in errors] == [(503, "M_UNKNOWN")] * 2
