# SPDX-License-Identifier: Apache-2.0
"""Slowing down guesses at one account."""

from __future__ import annotations

import pytest

from minihs.matrix.errors import MatrixError
from minihs.users.failures import BURST, EVERY_MS, MAX_ACCOUNTS, LoginFailures

ALICE = "@alice:example.org"


class Clock:
    ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


def failures(*, enabled: bool = True) -> tuple[LoginFailures, Clock]:
    clock = Clock()
    return LoginFailures(clock, enabled=enabled), clock


def test_a_burst_is_free_and_then_each_try_must_wait() -> None:
    counted, clock = failures()
    for _ in range(BURST + 1):
        counted.check(ALICE)
        counted.add(ALICE)
    with pytest.raises(MatrixError) as refused:
        counted.check(ALICE)
    assert refused.value.status == 429
    assert 0 < refused.value.extra["retry_after_ms"] <= EVERY_MS
    counted.check("@bob:example.org")
    clock.ms += refused.value.extra["retry_after_ms"]
    counted.check(ALICE)


def test_failures_are_forgotten_with_time() -> None:
    counted, clock = failures()
    for _ in range(BURST):
        counted.add(ALICE)
    clock.ms += BURST * EVERY_MS
    for _ in range(BURST + 1):
        counted.check(ALICE)
        counted.add(ALICE)


def test_a_clock_that_is_set_back_shuts_nobody_out() -> None:
    counted, clock = failures()
    for _ in range(BURST + 1):
        counted.add(ALICE)
    clock.ms -= 1_000_000
    counted.check(ALICE)
    for _ in range(BURST + 1):
        counted.check(ALICE)
        counted.add(ALICE)
    with pytest.raises(MatrixError):
        counted.check(ALICE)


def test_it_can_be_switched_off() -> None:
    counted, _ = failures(enabled=False)
    for _ in range(BURST * 2):
        counted.add(ALICE)
    counted.check(ALICE)


def test_the_number_of_accounts_is_bounded() -> None:
    counted, _ = failures()
    for i in range(MAX_ACCOUNTS + 10):
        counted.add(f"@{i}:example.org")
    assert len(counted._paid_until) == MAX_ACCOUNTS
