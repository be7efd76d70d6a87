# SPDX-License-Identifier: Apache-2.0
"""Token buckets."""

from __future__ import annotations

import pytest

from minihs.matrix.errors import MatrixError
from minihs.web.rate_limits import LIMITS, MAX_BUCKETS, RateLimiter, network_of

from .kit import FakeClock


def spend(limiter: RateLimiter, name: str, asker: str) -> int:
    """How many requests pass at once."""
    passed = 0
    while passed < 1000:
        try:
            limiter.check(name, asker)
        except MatrixError:
            return passed
        passed += 1
    raise AssertionError("there is no limit")


@pytest.mark.parametrize("name", LIMITS)
def test_the_burst_passes_and_then_as_much_as_flows_in(name: str) -> None:
    clock = FakeClock()
    limiter, limit = RateLimiter(clock, enabled=True), LIMITS[name]
    assert spend(limiter, name, "a") == limit.burst
    clock.ms += int(3 / limit.per_second * 1000)
    assert spend(limiter, name, "a") == 3
    clock.ms += 10**9
    assert spend(limiter, name, "a") == limit.burst


def test_a_clock_that_is_set_back_gives_and_takes_nothing() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock, enabled=True)
    limiter.check("login", "a")
    clock.ms -= 10**9
    assert spend(limiter, "login", "a") == LIMITS["login"].burst - 1


def test_one_asker_more_than_can_be_remembered_replaces_the_one_longest_away() -> None:
    limiter = RateLimiter(FakeClock(), enabled=True)
    spend(limiter, "login", "first")
    for number in range(MAX_BUCKETS - 1):
        limiter.check("login", str(number))
    assert len(limiter) == MAX_BUCKETS
    assert spend(limiter, "login", "first") == 0  # still known, and now the latest
    limiter.check("login", "one more")
    assert len(limiter) == MAX_BUCKETS
    assert spend(limiter, "login", "first") == 0


@pytest.mark.parametrize(
    ("address", "asker"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix", "unix"),
    ],
)
def test_an_asker_is_an_address_or_the_network_of_a_household(address: str, asker: str) -> None:
    assert network_of(address) == asker
