# SPDX-License-Identifier: Apache-2.0
"""What goes to a destination next, and remembering what it has got: between the senders and the database."""

from __future__ import annotations

import trio

from minihs.federation.sender import Sender
from minihs.federation.transaction import Batch, Item
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
        """What to send next; None if there is nothing. Takes fleeting EDUs out of the sender.

        What must not be lost and what may be take turns.
        """
        if sender.fleeting_next and (batch := self._fleeting(sender)) is not None:
            sender.more = True  # perhaps: it was not looked for
            return batch
        batch = await self._durable(sender)
        if batch is not None:
            sender.fleeting_next = True
        elif (batch := self._fleeting(sender)) is None and sender.greets:
            batch = Batch(self._our_name, self._runtime.clock.now_ms(), (), None, is_full=False)
        if batch is not None:
            sender.greets = False
        return batch

    def _fleeting(self, sender: Sender) -> Batch | None:
        sender.fleeting_next = False
        now = self._runtime.clock.now_ms()
        taken = sender.take_fleeting(MAX_EDUS, now)
        items = tuple(Item(edu, False, None, edu_type) for edu_type, edu in taken)
        return Batch(self._our_name, now, items, None, is_full=True) if items else None

    async def _durable(self, sender: Sender) -> Batch | None:
        """PDUs and durable EDUs, such that they can be sent again in the same bytes whatever happens
        meanwhile.

        A single PDU after a cursor that is on disk needs no more than that; all else is written down first.
        So where nothing is written down, a single PDU may have been under way once, and goes alone.
        """
        db = self._db.read
        row = destinations.get(db, sender.host)
        if row is None:
            await self._db.write(lambda tx: destinations.intern(tx, sender.host))
            row = destinations.get(db, sender.host)
            assert row is not None  # noqa: S101 -- just written
        if not sender.untried and (batch := self._again(sender, row)) is not None:
            return batch
        edus = [
            self._durable_edu(seq, edu) for seq, edu in destinations.next_edus(db, row.host_nid, MAX_EDUS)
        ]
        items, size = list(edus), sum(len(item.json) for item in edus)
        newest, after = destinations.newest(db), self._cursor(row)
        most = MAX_PDUS if sender.untried else 0 if edus else 1
        rows = destinations.next_events(db, row.host_nid, after=after, up_to=newest, limit=most + 1)
        for seq, event_id, pdu in rows[:most]:
            item = self._pdu(seq, event_id, pdu)
            size += len(item.json)
            if items and size > MAX_BYTES:
                break
            items.append(item)
        if not items:
            return None
        fits = len(items) - len(edus)
        waits = fits < len(rows)
        sender.more = sender.more or waits or len(edus) >= MAX_EDUS
        cursor: int | None = None
        if waits:
            cursor = rows[fits - 1][0] if fits else None
        elif rows or newest - after > MAX_LAG:
            cursor = newest
        if edus or fits > 1 or sender.host in self._delivered:
            now = self._runtime.clock.now_ms()
            seqs = [item.seq for item in edus if item.seq is not None]
            host_nid, until = row.host_nid, after if cursor is None else cursor

            def write(tx: Tx) -> None:
                destinations.attempting(tx, host_nid, after=after, until=until, edus=seqs, now_ms=now)

            await self._db.write(write)
        else:
            now = destinations.stored_at(db, rows[0][0])
        return Batch(self._our_name, now, tuple(items), cursor, is_full=waits and sender.untried)

    def _again(self, sender: Sender, row: Destination) -> Batch | None:
        """The transaction that is written down, unless the server has it."""
        if row.attempt_ts is None or row.attempt_until is None or row.attempt_edus is None:
            return None
        db, after = self._db.read, self._cursor(row)
        items = [
            self._durable_edu(seq, edu)
            for seq, edu in destinations.edus_again(db, row.host_nid, row.attempt_edus)
        ]
        for seq, event_id, pdu in destinations.next_events(
            db, row.host_nid, after=after, up_to=row.attempt_until, limit=MAX_PDUS
        ):
            items.append(self._pdu(seq, event_id, pdu))
        if not items:
            return None
        sender.more = True
        return Batch(self._our_name, row.attempt_ts, tuple(items), row.attempt_until, is_full=False)

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
