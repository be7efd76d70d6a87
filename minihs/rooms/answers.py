# SPDX-License-Identifier: Apache-2.0
"""Answers that hold many events, sent as they are read: never whole in memory, never long on the loop.

What an answer consists of is found out in one scan and is a list of numbers. The events themselves are read
in batches, each on a thread, as fast as the asking server takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import limit_exceeded
from minihs.store import event_json, ids
from minihs.store.database import Database, Reader

BATCH = 200
"""Events read at once: some 200 KiB."""
MAX_UNDER_WAY = 30
MAX_UNDER_WAY_OF_SERVER = 4
"""Large answers that are put together and sent at the same time."""
MAX_SECONDS = 900.0
"""A large answer is sent for no longer. No server waits so long for one; who reads on and on is in the way of
those who wait."""
PATIENCE = 20.0
"""Seconds that one waits for its turn."""


class Slots:
    """How many large answers are under way, in all and to each server."""

    def __init__(self) -> None:
        self._of_server: Counter[str] = Counter()
        self._freed = trio.Event()

    @contextmanager
    def hold(self, host: str) -> Iterator[None]:
        self._of_server[host] += 1
        try:
            yield
        finally:
            self._of_server[host] -= 1
            if not self._of_server[host]:
                del self._of_server[host]
            self._freed.set()

    async def wait(self, host: str) -> None:
        """Until there is room for one more. Raises M_LIMIT_EXCEEDED if that takes too long."""
        with trio.move_on_after(PATIENCE):
            while self._is_full(host):
                self._freed = trio.Event() if self._freed.is_set() else self._freed
                await self._freed.wait()
            return
        raise limit_exceeded(5_000, "Too many large answers are being sent already.")

    def _is_full(self, host: str) -> bool:
        return self._of_server[host] >= MAX_UNDER_WAY_OF_SERVER or self._of_server.total() >= MAX_UNDER_WAY


@dataclass(frozen=True, slots=True)
class EventsAnswer:
    """A JSON object whose last fields are long lists of events, or of their ids."""

    db: Database
    slots: Slots
    host: str
    fields: JsonObject = field(default_factory=dict)
    events: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ids: Mapping[str, Sequence[int]] = field(default_factory=dict)

    async def stream(self) -> AsyncGenerator[bytes]:
        """In pieces. Raises BrokenResourceError for one who reads too slowly, as if they had hung up."""
        end = trio.current_time() + MAX_SECONDS
        with self.slots.hold(self.host):
            yield canonical.dumps(self.fields)[:-1]
            comma = b"," if self.fields else b""
            for lists, read in ((self.events, event_json.of_nids), (self.ids, _ids)):
                for name, nids in lists.items():
                    yield comma + canonical.dumps(name) + b":["
                    comma, first = b",", True
                    for start in range(0, len(nids), BATCH):
                        part = await self.db.scan(
                            partial(_joined, read=read, nids=nids[start : start + BATCH])
                        )
                        if trio.current_time() > end:
                            raise trio.BrokenResourceError("a large answer is read too slowly")
                        if part:
                            yield part if first else b"," + part
                            first = False
                    yield b"]"
            yield b"}"


type _Read = Callable[[Reader, Sequence[int]], list[bytes]]


def _joined(db: Reader, *, read: _Read, nids: Sequence[int]) -> bytes:
    return b",".join(read(db, nids))


def _ids(db: Reader, nids: Sequence[int]) -> list[bytes]:
    names = ids.event_ids(db, nids)
    return [canonical.dumps(names[nid]) for nid in nids if nid in names]
