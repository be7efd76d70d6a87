# SPDX-License-Identifier: Apache-2.0
"""How other servers do: what they still must get from us, and whether they answer (`minihs peers`)."""

from __future__ import annotations

from minihs.matrix.canonical import JsonObject
from minihs.store import destinations
from minihs.store.database import Reader


def peers(db: Reader) -> list[JsonObject]:
    """Those that don't answer first, then those that something waits for. For a scan."""
    found = []
    for row in destinations.everyone(db):
        pdus, edus = destinations.waiting(db, row.host_nid, row.cursor)
        found.append(
            {
                "host": row.host,
                "state": "ok" if row.failing_since is None else "failing",
                "failing_since": row.failing_since,
                "retry_at": row.retry_at,
                "last_success": row.last_success,
                "last_error": row.last_error,
                "pdus_waiting": pdus,
                "edus_waiting": edus,
                "shares_a_room": destinations.shares_a_room(db, row.host),
            }
        )
    return sorted(
        found,
        key=lambda peer: (peer["state"] == "ok", -peer["pdus_waiting"] - peer["edus_waiting"], peer["host"]),
    )
