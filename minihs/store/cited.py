# SPDX-License-Identifier: Apache-2.0
"""Memberships that events cite, for rooms whose members we don't know yet (`store.partial`)."""

from __future__ import annotations

from collections.abc import Sequence

from minihs.store import timeline
from minihs.store.events import unpack_nids
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow


def cited_members(db: Reader, rows: Sequence[EventRow]) -> dict[int, int]:
    """key_nid → event_nid of the membership of each event's sender, by the event's own auth events; of
    several, what the first of the events cites."""
    keys = timeline.member_keys(db, {row.sender for row in rows})
    cited: dict[int, set[int]] = {}
    for marks, part in timeline.padded([row.nid for row in rows]):
        cited.update(
            (nid, set(unpack_nids(blob)))
            for nid, blob in db.execute(
                f"SELECT event_nid, auth_nids FROM events WHERE event_nid IN ({marks})", part
            ).fetchall()
        )
    members = timeline.rows_of(db, {nid for nids in cited.values() for nid in nids})
    found: dict[int, int] = {}
    for row in rows:
        key = keys.get(row.sender)
        for nid in cited.get(row.nid, ()):
            if key is not None and nid in members and members[nid].key_nid == key:
                found.setdefault(key, nid)
    return found
