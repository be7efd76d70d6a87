# SPDX-License-Identifier: Apache-2.0
"""Guessing at one account's password from many addresses: slowed down here, since the edge counts by address.

Only failures count, so a user who knows the password is held up by others' guessing for seconds at most.
"""

from __future__ import annotations

from collections import OrderedDict

from minihs.matrix.errors import limit_exceeded
from minihs.runtime import Clock

BURST = 30
EVERY_MS = 10_000
"""After `BURST` failures, one more try in this time: at most 9,000 guesses a day."""

MAX_ACCOUNTS = 10_000


class LoginFailures:
    """Failed tries of each account, as the time until which they are paid for; forgotten oldest first."""

    def __init__(self, clock: Clock, *, enabled: bool) -> None:
        self._clock = clock
        self._enabled = enabled
        self._paid_until: OrderedDict[str, int] = OrderedDict()

    def check(self, user_id: str) -> None:
        """M_LIMIT_EXCEEDED if there were too many of late."""
        now = self._clock.now_ms()
        over = self._paid(user_id, now) - now - BURST * EVERY_MS
        if self._enabled and over > 0:
            raise limit_exceeded(over, "Too many failed logins.")

    def add(self, user_id: str) -> None:
        now = self._clock.now_ms()
        paid_until = self._paid(user_id, now) + EVERY_MS
        self._paid_until.pop(user_id, None)
        self._paid_until[user_id] = paid_until
        if len(self._paid_until) > MAX_ACCOUNTS:
            self._paid_until.popitem(last=False)

    def _paid(self, user_id: str, now: int) -> int:
        """Never before now; nor later than it can be, as it would after the clock was set back."""
        paid_until = max(self._paid_until.get(user_id, 0), now)
        return paid_until if paid_until <= now + (BURST + 1) * EVERY_MS else now
