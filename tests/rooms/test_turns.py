# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is. Virtual time: a step of work takes as long as the test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from minihs.rooms import turns
from minihs.rooms.turns import PATIENCE, PRECEDENCE, STEP, Turns
from minihs.testing.clock import run_virtual

LOUD, QUIET = "loud.test", "quiet.test"


def timed(play: Callable[[Turns], Awaitable[None]]) -> float:
    """Seconds that it took, for a loud server on which ten times the patience was spent before."""

    async def run() -> float:
        at = Turns()
        await at.give_way(LOUD, trio.current_time() - 10 * PRECEDENCE)
        started = trio.current_time()
        await play(at)
        return trio.current_time() - started

    return run_virtual(run)


async def step(at: Turns, account: str = LOUD, room_id: str | None = None) -> None:
    await at.give_way(account, trio.current_time(), room_id)


def test_with_nobody_else_there_no_time_is_lost() -> None:
    async def play(at: Turns) -> None:
        with at.request(LOUD):
            for _ in range(100):
                await step(at)

    assert timed(play) == 0


def test_it_waits_for_the_end_of_what_is_under_way_for_a_quieter_one() -> None:
    async def quiet(at: Turns, task_status: trio.TaskStatus[None]) -> None:
        with at.request(QUIET):
            task_status.started()
            await trio.sleep(0.1)

    async def play(at: Turns) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(quiet, at)
            await step(at)

    assert timed(play) == pytest.approx(0.1)


def test_all_that_wait_go_on_when_it_ends() -> None:
    async def play(at: Turns) -> None:
        at.expect(["!room"], QUIET)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(step, at)
            await trio.sleep(0.1)
            at.dealt_with("!room", [QUIET])

    assert timed(play) == pytest.approx(0.1)


def test_what_waits_for_something_else_has_precedence_for_a_moment_only() -> None:
    async def play(at: Turns) -> None:
        at.expect(["!room"], QUIET)
        await step(at)
        await step(at)

    assert timed(play) == pytest.approx(PRECEDENCE)


def test_whoever_keeps_coming_leaves_the_loud_one_its_share() -> None:
    steps = 1_000

    async def play(at: Turns) -> None:
        for number in range(steps):
            at.expect(["!room"], f"{number}.{QUIET}")
            await step(at)

    assert timed(play) == pytest.approx(PRECEDENCE + steps * STEP * PATIENCE, rel=0.01)


@pytest.mark.parametrize(
    ("account", "room_id", "waits"),
    [(LOUD, "!other", True), (LOUD, None, True), (LOUD, "!room", False), (f"new.{QUIET}", "!other", False)],
)
def test_no_waiting_for_what_waits_for_this_room_or_is_of_a_louder_one(
    account: str, room_id: str | None, waits: bool
) -> None:
    async def play(at: Turns) -> None:
        at.expect(["!room"], QUIET)
        await step(at, account, room_id)

    assert (timed(play) > 0) is waits


def test_of_two_that_send_as_much_each_has_its_turn() -> None:
    done: list[str] = []

    async def work(at: Turns, account: str) -> None:
        with at.request(account):
            for _ in range(50):
                await step(at, account)
                done.append(account)

    async def play(at: Turns) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, at, "one.test")
            nursery.start_soon(work, at, "two.test")

    timed(play)
    for end in range(10, 100, 10):
        assert abs(done[:end].count("one.test") - end / 2) <= 3


def test_a_room_may_be_through_before_who_handed_it_in_knows() -> None:
    async def play(at: Turns) -> None:
        at.expect(["!room"], QUIET)
        at.dealt_with("!room", [QUIET])
        at.hand_to("!room", QUIET, 7)
        await step(at)

    assert timed(play) == 0


def test_a_room_that_asks_other_servers_holds_up_nobody() -> None:
    async def play(at: Turns) -> None:
        at.expect(["!room"], QUIET)
        at.set_aside("!room")
        await step(at)

    assert timed(play) == 0


def test_a_room_is_told_what_it_got_from_quieter_ones() -> None:
    async def play(at: Turns) -> None:
        at.expect(["!room", "!other"], QUIET)
        assert at.before(LOUD, "!room") == []  # not in the inbox yet
        at.hand_to("!room", QUIET, 7)
        at.hand_to("!room", QUIET, 9)
        assert [(found.account, found.since) for found in at.before(LOUD, "!room")] == [(QUIET, 7)]
        assert at.before(QUIET, "!room") == at.before(f"new.{QUIET}", "!room") == []
        await trio.sleep(PRECEDENCE)
        assert at.before(LOUD, "!room") == []

    timed(play)


def test_what_was_spent_is_forgotten_in_time() -> None:
    async def play(at: Turns) -> None:
        await trio.sleep(turns.HALF_LIFE * 15)
        at.expect(["!room"], QUIET)
        started = trio.current_time()
        await step(at)
        assert trio.current_time() == started

    timed(play)


def test_accounts_are_bounded_and_the_large_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_ACCOUNTS", 10)

    async def play(at: Turns) -> None:
        for number in range(100):
            await step(at, f"{number}.test")
        assert len(at._accounts) <= 10
        at.expect(["!room"], QUIET)
        started = trio.current_time()
        await step(at)
        assert trio.current_time() > started

    timed(play)


@pytest.mark.parametrize(
    ("another", "took", "turns_of_the_loop"),
    [(None, 0.0, 4), (None, turns.SHORT_STEP * 2.6, 10), (None, 2 * STEP, 20), (QUIET, 0.0, 20)],
)
def test_short_steps_are_taken_together_as_long_as_nobody_else_is_about(
    another: str | None, took: float, turns_of_the_loop: int
) -> None:
    async def run() -> int:
        at = Turns()
        await step(at)
        await trio.sleep(turns.HALF_LIFE)  # it is new itself by then
        if another is not None:
            await step(at, another)
        count = 0

        async def look() -> None:
            nonlocal count
            while True:
                await trio.lowlevel.checkpoint()
                count += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.lowlevel.checkpoint()
            for _ in range(20):
                await at.after_step(LOUD, trio.current_time() - took, "!room")
            nursery.cancel_scope.cancel()
        return count

    assert abs(run_virtual(run) - turns_of_the_loop) <= 1
