# SPDX-License-Identifier: Apache-2.0
"""How often a client may ask: token buckets, one per limit and asker, in bounded memory.

A route names its limit: `@routes.post(..., limit="login")`. The asker is the user if the request has one,
else the address (an IPv6 asker is its /64). When there are too many askers, those whose buckets have been
untouched longest are forgotten first; they would be full again soon anyway.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from minihs.matrix.errors import limit_exceeded
from minihs.runtime import Clock


@dataclass(frozen=True, slots=True)
class Limit:
    per_second: float
    burst: int


LIMITS = {
    "login": Limit(per_second=0.2, burst=10),  # a person's mistyping passes, guessing does not
    "registration": Limit(per_second=0.05, burst=10),  # one takes two requests
    "message": Limit(per_second=10.0, burst=100),
    "join": Limit(per_second=0.5, burst=20),  # each may cost other servers a lot
    "notary": Limit(per_second=2.0, burst=100),  # each may make us ask another server
    "upload": Limit(per_second=2.0, burst=100),
    "media": Limit(per_second=20.0, burst=500),  # per address; a gallery opened elsewhere passes
    "lookup": Limit(per_second=5.0, burst=50),  # unauthenticated or searching requests
}

MAX_BUCKETS = 10_000


class RateLimiter:
    """All buckets of one server. Owned by the app; touched only on the loop."""

    def __init__(self, clock: Clock, *, enabled: bool) -> None:
        self._clock = clock
        self._enabled = enabled
        self._buckets: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def check(self, name: str, asker: str) -> None:
        """Take one token from the asker's bucket, or raise M_LIMIT_EXCEEDED."""
        if not self._enabled:
            return
        limit = LIMITS[name]
        now = self._clock.now_ms()
        tokens, since = self._buckets.pop((name, asker), (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + max(0, now - since) / 1000 * limit.per_second)
        allowed = tokens >= 1.0
        self._buckets[name, asker] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise limit_exceeded(retry_after_ms=int((1.0 - tokens) / limit.per_second * 1000) + 1)

    def __len__(self) -> int:
        return len(self._buckets)


def network_of(address: str) -> str:
    """The address as one asker: IPv6 by its /64, which is what one household or host gets."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address) + "/64"
    return address
