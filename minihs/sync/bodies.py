# SPDX-License-Identifier: Apache-2.0
"""Event JSON read lately. What is new is read by every client of a room at about the same time, by each for
its timeline and for its unread count; parsing it once saves most of an answer's work.

Only what clients are shown of an event is kept, not its hashes, signatures and references. Nothing here may
be changed by those who get it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.store import timeline
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow

SHOWN = ("type", "sender", "content", "origin_server_ts", "state_key", "redacts")

MAX_KEPT = 1000
"""Events; 2 to 3 kB each."""


class Body(NamedTuple):
    event_id: str
    pdu: JsonObject
    """The PDU's fields that are in SHOWN."""


class Bodies:
    """Shared by the loop and threads: entries are only added and dropped, never changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int | None], Body] = {}

    def get(self, db: Reader, rows: Iterable[EventRow]) -> dict[int, Body]:
        """nid → body. A redacted event is another entry than it was before."""
        kept = self._kept
        found: dict[int, Body] = {}
        missing: dict[int, int | None] = {}
        for row in rows:
            body = kept.get((row.nid, row.redacted_by))
            if body is None:
                missing[row.nid] = row.redacted_by
            else:
                found[row.nid] = body
        if missing:
            for nid, (event_id, pdu) in timeline.bodies(db, missing).items():
                found[nid] = Body(event_id, {name: pdu[name] for name in SHOWN if name in pdu})
            self._keep(
                {(nid, redacted_by): found[nid] for nid, redacted_by in missing.items() if nid in found}
            )
        return found

    def _keep(self, new: dict[tuple[int, int | None], Body]) -> None:
        if len(self._kept) + len(new) > MAX_KEPT:
            # The older half goes: dicts keep the order in which they were filled.
            self._kept = dict(list(self._kept.items())[-MAX_KEPT // 2 :])
        if len(new) <= MAX_KEPT // 2:
            self._kept.update(new)
