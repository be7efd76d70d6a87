# SPDX-License-Identifier: Apache-2.0
"""What goes to a destination next, and remembering what it has got: between the senders and the database."""

from __future__ import annotations

import trio

from minihs.federation.sender import Sender
from minihs.federation.transaction import Batch, Item, TransactionIds
from minihs.matrix import canonical
from minihs.matrix.canonical import BadJson
from minihs.runtime import Runtime
from minihs.store import destinations
from minihs.store.database import Database, Tx
from minihs.store.destinations import Destination

MAX_PDUS, MAX_EDUS = 50, 100
MAX_BYTES = 5 * 1024 * 1024
"""A transaction ends when it has become this large."""

MAX_CACHED_PDUS = 300
MAX_LAG = 1_000
"""Rows of others that a cursor may lie behind before it is moved without need."""

FLUSH_INTERVAL = 1.0
TIDY_INTERVAL = 3600.0


class Outgoing:
    """Mutable state: cursors that are ahead of what is on disk, and PDUs that many destinations are about to
    get."""

    def __init__(self, our_name: str, db: Database, runtime: Runtime) -> None:
        self._our_name = our_name
        self._db = db
        self._runtime = runtime
        self._ids = TransactionIds(runtime.random.token_urlsafe(9))
        self._delivered: dict[str, int] = {}
        self._news = trio.Event()
        self._pdus: dict[int, Item] = {}

    # -- what comes next --

    def waiting(self, host: str) -> tuple[int, int]:
        """How many PDUs and durable EDUs wait, counted to a thousand."""
        row = destinations.get(self._db.read, host)
        if row is None:
            return 0, 0
        return destinations.waiting(self._db.read, row.host_nid, self._cursor(row))

    def _cursor(self, row: Destination) -> int:
        return max(row.cursor, self._delivered.get(row.host, 0))

    async def next_batch(self, sender: Sender) -> Batch | None:
        """What to send next; None if there is nothing. Takes fleeting EDUs out of the sender."""
        db = self._db.read
        row = destinations.get(db, sender.host)
        if row is None:
            await self._db.write(lambda tx: destinations.intern(tx, sender.host))
            row = destinations.get(db, sender.host)
            assert row is not None  # noqa: S101 -- just written
        now = self._runtime.clock.now_ms()
        items = [
            self._durable_edu(seq, edu) for seq, edu in destinations.next_edus(db, row.host_nid, MAX_EDUS)
        ]
        for edu_type, fleeting in sender.take_fleeting(MAX_EDUS - len(items), now):
            items.append(Item(fleeting, False, None, edu_type))
        many_edus = len(items) >= MAX_EDUS
        newest, after = destinations.newest(db), self._cursor(row)
        rows = destinations.next_events(db, row.host_nid, after=after, up_to=newest, limit=MAX_PDUS)
        size, fits = sum(len(item.json) for item in items), 0
        for seq, event_id, pdu in rows:
            item = self._pdu(seq, event_id, pdu)
            size += len(item.json)
            if items and size > MAX_BYTES:
                break
            items.append(item)
            fits += 1
        if not items and not sender.greets:
            return None
        sender.greets = False
        is_full = fits < len(rows) or fits == MAX_PDUS
        sender.more = sender.more or is_full or many_edus
        cursor: int | None = None
        if is_full:
            cursor = rows[fits - 1][0] if fits else None
        elif rows or newest - after > MAX_LAG:
            cursor = newest
        return Batch(self._ids, self._our_name, now, tuple(items), cursor, is_full)

    def _pdu(self, seq: int, event_id: str, json: bytes) -> Item:
        """A PDU goes to many destinations: its canonical form is kept for a while."""
        item = self._pdus.get(seq)
        if item is None:
            while len(self._pdus) >= MAX_CACHED_PDUS:
                del self._pdus[next(iter(self._pdus))]
            item = self._pdus[seq] = Item(canonical.encode(canonical.loads(json)), True, seq, event_id)
        return item

    @staticmethod
    def _durable_edu(seq: int, text: str) -> Item:
        try:
            edu = canonical.loads(text.encode())
            return Item(canonical.encode(edu), False, seq, str(edu.get("edu_type")))
        except BadJson:
            # It would stop the queue for ever. In its place goes one that says nothing.
            return Item(b'{"content":{},"edu_type":"org.minihs.none"}', False, seq, "unreadable")

    # -- what it has --

    async def delivered(self, host: str, batch: Batch, *, at_once: bool) -> None:
        """The destination has the batch. Durable EDUs are gone from disk on return; a mere cursor soon
        after."""
        now = self._runtime.clock.now_ms()
        edus = [item.seq for item in batch.items if not item.is_pdu and item.seq is not None]
        if edus or at_once:
            cursor = max(batch.cursor or 0, self._delivered.pop(host, 0))

            def write(tx: Tx) -> None:
                destinations.delivered(tx, host, cursor=cursor, edus=edus, now_ms=now)

            await self._db.write(write)
        elif batch.cursor is not None:
            self._delivered[host] = max(batch.cursor, self._delivered.get(host, 0))
            self._news.set()

    async def flush(self) -> None:
        """Write cursors back, those of all destinations together. Runs until cancelled, and then once
        more."""
        try:
            while True:
                await self._news.wait()
                await trio.sleep(FLUSH_INTERVAL)
                self._news = trio.Event()
                await self._write_cursors()
        finally:
            with trio.CancelScope(shield=True):  # one write
                await self._write_cursors()

    async def _write_cursors(self) -> None:
        cursors, now = dict(self._delivered), self._runtime.clock.now_ms()
        if not cursors:
            return
        await self._db.write(lambda tx: destinations.delivered_to_many(tx, cursors, now))
        for host, cursor in cursors.items():
            if self._delivered.get(host) == cursor:
                del self._delivered[host]

    async def tidy(self) -> None:
        """Drop what everybody has, now and then. Runs until cancelled."""
        while True:
            await trio.sleep(TIDY_INTERVAL)
            found = await self._db.scan(destinations.find_tidying)

            def tidy(tx: Tx, found: destinations.Tidying = found) -> None:
                destinations.tidy(tx, found)

            await self._db.write(tidy)
