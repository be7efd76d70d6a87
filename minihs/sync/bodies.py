# SPDX-License-Identifier: Apache-2.0
"""Event JSON that was read lately, or written right now. What is new is read by every client of a room at
about the same time, by each for its timeline and for its unread count: it is read for none of them, but taken
over as it was written.

Only what clients are shown of an event is kept, not its hashes, signatures and references. Nothing here may
be changed by those who get it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import NamedTuple

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event
from minihs.store import timeline
from minihs.store.byte_cache import ByteCache
from minihs.store.reader import Reader
from minihs.store.timeline import EventRow

SHOWN = ("type", "sender", "content", "origin_server_ts", "state_key", "redacts")

BODIES_BYTES = 4 * 1024 * 1024
CONTENT_FACTOR = 6
"""What a content takes in memory, about, in multiples of its JSON."""
OVERHEAD = 1_000
"""Bytes, of everything else that belongs to one event."""

MAX_CHANGED = 4096
"""Events that got another JSON, of which it is remembered: more than change while one scan goes on."""


class Body(NamedTuple):
    event_id: str
    pdu: JsonObject
    """The PDU's fields that are in SHOWN."""


class Bodies:
    """Shared by the loop and threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: ByteCache[tuple[int, int | None], Body] = ByteCache(BODIES_BYTES)
        self._written: Mapping[int, Event | None] = {}
        """By the last commit that wrote events: who was waiting for them reads them next, or nobody does."""
        self._changed: dict[int, None] = {}
        """What a scan that began before may still read as it was."""

    def get(self, db: Reader, rows: Iterable[EventRow]) -> dict[int, Body]:
        """nid → body. A redacted event is another entry than it was before."""
        found: dict[int, Body] = {}
        missing: dict[int, int | None] = {}
        with self._lock:
            for row in rows:
                body = self._kept.get((row.nid, row.redacted_by))
                if body is None:
                    missing[row.nid] = row.redacted_by
                else:
                    found[row.nid] = body
        if missing:
            new = self._just_written(missing)
            if len(new) < len(missing):
                unread = [nid for nid in missing if nid not in new]
                for nid, (event_id, pdu) in timeline.bodies(db, unread).items():
                    new[nid] = _body(event_id, pdu)
            # Others than the loop's reader, scans, may read an earlier state of the database.
            self._keep({(nid, missing[nid]): body for nid, body in new.items()}, early=db.kept is None)
            found |= new
        return found

    def _just_written(self, missing: Mapping[int, int | None]) -> dict[int, Body]:
        written, new = self._written, {}
        for nid, redacted_by in missing.items():
            event = written.get(nid) if redacted_by is None else None
            if event is not None:
                new[nid] = _body(event.event_id, event.json)
        return new

    def take_over(self, written: Mapping[int, Event | None]) -> None:
        """These were just written, by their numbers; those without an event in the place of their redacted
        form. (If one was redacted by the same commit, nobody asks for it as it is here.)"""
        with self._lock:
            for nid, event in written.items():
                self._kept.drop((nid, None))
                if event is None:
                    self._changed.pop(nid, None)
                    self._changed[nid] = None
            while len(self._changed) > MAX_CHANGED:
                del self._changed[next(iter(self._changed))]
        self._written = written

    def _keep(self, new: Mapping[tuple[int, int | None], Body], *, early: bool) -> None:
        """`early`: they may have been read from an earlier state of the database."""
        sizes = [CONTENT_FACTOR * len(canonical.dumps(body.pdu.get("content"))) for body in new.values()]
        with self._lock:
            for (key, body), size in zip(new.items(), sizes, strict=True):
                if not (early and key[0] in self._changed):
                    self._kept.put(key, body, size + OVERHEAD)


def _body(event_id: str, pdu: JsonObject) -> Body:
    return Body(event_id, {name: pdu[name] for name in SHOWN if name in pdu})
