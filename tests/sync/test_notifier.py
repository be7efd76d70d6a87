# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from minihs.sync.notifier import Notifier
from minihs.sync.tokens import Place, SyncToken, parse_place, parse_sync_token


async def test_a_waiter_is_woken_by_its_keys_only(autojump_clock: MockClock) -> None:
    notifier = Notifier()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def later() -> None:
            await trio.sleep(1)
            notifier.wake(["b"])
            await trio.sleep(1)
            notifier.wake(["x", "a"])

        started = trio.current_time()
        with notifier.subscribe(["a"]) as subscription:
            assert await subscription.wait(started + 10) is True
        assert trio.current_time() - started == pytest.approx(2, abs=0.5)
    with notifier.subscribe(["a"]) as subscription:
        assert await subscription.wait(trio.current_time() + 3) is False


async def test_news_between_reading_and_waiting_are_not_missed(autojump_clock: MockClock) -> None:
    notifier = Notifier()
    with notifier.subscribe(["a"]) as subscription:
        subscription.rearm()
        notifier.wake(["a"])
        assert await subscription.wait(trio.current_time() + 1) is True
        subscription.rearm()
        assert await subscription.wait(trio.current_time() + 1) is False


async def test_nothing_is_left_behind_by_waiters_that_went_away(autojump_clock: MockClock) -> None:
    notifier = Notifier()
    with trio.move_on_after(1):
        with notifier.subscribe([f"room:{number}" for number in range(100)]) as subscription:
            await subscription.wait(float("inf"))
    assert len(notifier) == 0
    with notifier.subscribe(["a", "b"]) as subscription:
        subscription.watch(["b", "c"])
        assert len(notifier) == 2
    assert len(notifier) == 0


def test_tokens_survive_being_written_and_read() -> None:
    for token in (SyncToken(5, 7), SyncToken(0, 0), SyncToken(5, 7, 3)):
        assert parse_sync_token(str(token)) == token == parse_place(str(token))
    for place in (Place(5, 7), Place(-5, -7)):
        assert parse_place(str(place)) == place
    assert Place(5, 7).before() < Place(5, 7) < Place(6, 0)
