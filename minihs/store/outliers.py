# SPDX-License-Identifier: Apache-2.0
"""Storing many events at once that have no place in the timeline: the state of a room that we join."""

from __future__ import annotations

from collections.abc import Iterable

from minihs.matrix import canonical
from minihs.matrix.event import Event
from minihs.store import ids
from minihs.store.database import Tx
from minihs.store.events import MAX_INTEGER, Outcome, pack_nids
from minihs.store.packing import pack


def insert_new(
    tx: Tx, room_nid: int, outliers: Iterable[tuple[Event, str | None]], *, received_ts: int
) -> None:
    """What `events.insert` does for each of these, in a few statements for all of them. None of them may be
    held already. With each comes why it is rejected, or None.

    The events are gone through once: of each only what is written is kept meanwhile.
    """
    waiting = [
        (
            event.event_id,
            event.type,
            event.sender,
            event.key,
            event.membership,
            min(event.depth, MAX_INTEGER),
            max(-MAX_INTEGER, min(event.origin_server_ts, MAX_INTEGER)),
            reason,
            event.auth_events,
            pack(canonical.dumps(event.json)),
        )
        for event, reason in outliers
    ]
    nids = ids.intern_events(tx, [event_id for row in waiting for event_id in (row[0], *row[8])])
    keys = ids.intern_keys(tx, [row[3] for row in waiting if row[3] is not None])
    tx.executemany(
        "INSERT INTO events (event_nid, room_nid, type, sender, key_nid, membership, depth, ts, received_ts, "
        "outcome, reason, outlier, auth_nids) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)",
        [
            (
                nids[event_id],
                room_nid,
                type,
                sender,
                None if key is None else keys[key],
                membership,
                depth,
                ts,
                received_ts,
                int(Outcome.ACCEPTED if reason is None else Outcome.REJECTED),
                reason,
                pack_nids(nids[auth_id] for auth_id in auth_events),
            )
            for event_id, type, sender, key, membership, depth, ts, reason, auth_events, _ in waiting
        ],
    )
    tx.executemany(
        "INSERT INTO event_json (event_nid, json) VALUES (?, ?)", [(nids[row[0]], row[9]) for row in waiting]
    )
