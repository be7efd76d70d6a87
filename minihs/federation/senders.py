# SPDX-License-Identifier: Apache-2.0
"""Sending to other servers (spec: server-server-api, "Transactions").

The policy, which the code below follows:

* A destination has a task only while it has work and is not failing. A transaction holds at most 50 PDUs and
  100 EDUs: to-device messages first, then device lists, then what is fleeting (typing, receipts, presence),
  and PDUs in the order in which they were made. One transaction is under way at a time.
* What must not be lost is on disk: PDUs behind a cursor, durable EDUs in a table. Both are moved on in one
  write after the 200. Fleeting EDUs are in memory, a later one in the place of an earlier one with its key.
* 400 and 413 blame the content: the transaction is cut in halves until the one item is found that the
  destination won't take. It is set aside once others, or an empty transaction, have passed: else it is the
  destination that is at fault.
* Every other failure is the destination's. The same bytes are sent again under the same transaction id,
after a pause that doubles each time (with some chance in it, so that not all come back at once) up to a day
for a server with which we share a room, a week for others. A pause costs no task. When it is long, the
bytes are dropped and made anew later under a new id; an id never stands for two contents, restarts
included. * A request by the destination itself shows that it lives: its pause ends. * After a restart the
destinations with work start spread over some seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import structlog
import trio

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.federation_errors import FederationError, RemoteRefused
from minihs.runtime import Runtime
from minihs.store import destinations
from minihs.store.database import Database, Tx

log = structlog.get_logger()

MAX_PDUS, MAX_EDUS = 50, 100
MAX_FLEETING = 500
"""Fleeting EDUs kept for one destination; the oldest go first."""
FIRST_PAUSE_MS = 2_000
LONGEST_PAUSE_MS, LONGEST_PAUSE_STRANGER_MS = 24 * 3600_000, 7 * 24 * 3600_000
KEEP_BYTES_MS = 10 * 60_000
"""A pause longer than this drops the transaction's bytes."""
TIMEOUT_S = 60.0
MAX_STARTING = 40
"""First transactions of destinations under way at once: each may need DNS, a connection, a handshake."""
SPREAD_S = 0.1
"""After a restart, times the number of destinations with work, at most a minute."""
TIDY_S = 3600.0


class State(Enum):
    SENDING = "sending"
    BACKING_OFF = "backing off"
    PARKED = "parked"


class Client(Protocol):
    async def send_transaction(
        self, host: str, txn_id: str, content: bytes, *, within: float
    ) -> JsonObject: ...


@dataclass(slots=True)
class Item:
    """One thing to send, and where it is kept."""

    json: bytes
    is_pdu: bool
    seq: int | None
    """Of the outbound event or the durable EDU; None: fleeting."""


@dataclass(slots=True)
class Transaction:
    txn_id: str
    items: list[Item]
    content: bytes


@dataclass(slots=True)
class Sender:
    """What is known in memory of a destination that has work or fails. Idle ones have no record."""

    host: str
    state: State = State.SENDING
    fleeting: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    pending: Transaction | None = None
    backoff_ms: int = 0
    retry_at: int = 0
    error: str = ""
    more: bool = False
    """Work came while the task was looking."""
    running: bool = False

    def __repr__(self) -> str:
        waiting = f", {len(self.fleeting)} fleeting EDUs" if self.fleeting else ""
        pause = f" {self.backoff_ms // 1000}s after: {self.error}" if self.state is not State.SENDING else ""
        return f"<Sender {self.host}: {self.state.value}{pause}{waiting}>"


class Senders:
    def __init__(self, our_name: str, db: Database, runtime: Runtime, client: Client) -> None:
        self._our_name = our_name
        self._db = db
        self._runtime = runtime
        self._client = client
        self._senders: dict[str, Sender] = {}
        self._epoch = runtime.random.token_urlsafe(9)
        self._count = 0
        self._nursery: trio.Nursery | None = None
        self._starting = trio.CapacityLimiter(MAX_STARTING)
        self._retry_news = trio.Event()
        self._sets: dict[int, list[str]] = {}
        db.on_commit(self._on_commit)

    def __repr__(self) -> str:
        return f"<Senders {sorted(map(repr, self._senders.values()))}>"

    def state_of(self, host: str) -> str:
        """For operators: what the host's sender is doing."""
        sender = self._senders.get(host)
        return "idle" if sender is None else repr(sender)

    # -- what wakes a sender --------------------------------------------------------------------------

    def _on_commit(self, keys: frozenset[str]) -> None:
        for key in keys:
            kind, _, name = key.partition(":")
            if kind == "host":
                self.wake(name)
            elif kind == "hostset":
                for host in self._hosts_of_set(int(name)):
                    self.wake(host)

    def _hosts_of_set(self, nid: int) -> list[str]:
        """A set never changes once it has its number."""
        hosts = self._sets.get(nid)
        if hosts is None:
            if len(self._sets) > 200:
                self._sets.clear()
            hosts = self._sets[nid] = destinations.hosts_of_set(self._db.read, nid)
        return hosts

    def wake(self, host: str) -> None:
        """There is work for this destination."""
        if host == self._our_name or self._nursery is None:
            return
        sender = self._senders.get(host)
        if sender is None:
            sender = self._senders[host] = self._load(host)
        sender.more = True
        if sender.state is State.SENDING:
            self._start(sender)

    def _load(self, host: str) -> Sender:
        sender = Sender(host)
        row = destinations.get(self._db.read, host)
        if row is not None and row.retry_at is not None and row.retry_at > self._runtime.clock.now_ms():
            sender.state = State.PARKED
            sender.retry_at, sender.backoff_ms = row.retry_at, row.backoff_ms
            sender.error = row.last_error or ""
            self._retry_news.set()
        return sender

    def queue_edu(
        self, hosts: Collection[str], edu_type: str, content: JsonObject, *, key: tuple[str, ...]
    ) -> None:
        """Send an EDU that may be lost. A later one with the same key takes the place of one not yet sent."""
        edu = canonical.encode({"edu_type": edu_type, "content": content})
        for host in hosts:
            self.wake(host)
            sender = self._senders.get(host)
            if sender is None or sender.state is not State.SENDING:
                continue  # by the time it is back, nobody cares who typed
            sender.fleeting.pop((edu_type, *key), None)
            sender.fleeting[(edu_type, *key)] = edu
            while len(sender.fleeting) > MAX_FLEETING:
                del sender.fleeting[next(iter(sender.fleeting))]

    def heard_from(self, host: str) -> None:
        """The server sent us a rightly signed request: it is up, whatever happened before."""
        sender = self._senders.get(host)
        if sender is not None and sender.state is not State.SENDING:
            self._resume(sender)

    def retry_now(self, host: str) -> None:
        """For operators: end the pause of a destination."""
        self.heard_from(host)
        self.wake(host)

    # -- tasks ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._retry)
                nursery.start_soon(self._tidy)
                waiting = destinations.with_work(self._db.read)
                for count, host in enumerate(waiting):
                    nursery.start_soon(self._start_later, host, min(count * SPREAD_S, 60.0))
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _start_later(self, host: str, pause: float) -> None:
        await trio.sleep(pause)
        self.wake(host)

    async def _retry(self) -> None:
        """End the pauses of failing destinations when they are over."""
        while True:
            self._retry_news = trio.Event()
            now = self._runtime.clock.now_ms()
            paused = [sender for sender in self._senders.values() if sender.state is not State.SENDING]
            for sender in paused:
                if sender.retry_at <= now:
                    self._resume(sender)
            due = [sender.retry_at for sender in paused if sender.state is not State.SENDING]
            pause = max(0.05, (min(due) - now) / 1000) if due else 24 * 3600.0
            with trio.move_on_after(pause):
                await self._retry_news.wait()

    def _resume(self, sender: Sender) -> None:
        sender.state = State.SENDING
        self._start(sender)

    async def _tidy(self) -> None:
        while True:
            await trio.sleep(TIDY_S)
            await self._db.write(destinations.tidy)

    def _start(self, sender: Sender) -> None:
        if not sender.running and self._nursery is not None:
            sender.running = True
            self._nursery.start_soon(self._work, sender, name=f"sender {sender.host}")

    async def _work(self, sender: Sender) -> None:
        """Send what there is; end when there is nothing more, or the destination fails."""
        try:
            async with self._starting:
                going = await self._step(sender)
            while going:
                going = await self._step(sender)
        except Exception as error:  # the boundary of one destination: the others go on
            log.error("a sender failed", destination=sender.host, exc_info=error)
            await self._fail(sender, f"internal error: {error!r}")
        finally:
            sender.running = False
        if sender.state is State.SENDING:
            if sender.more or sender.fleeting:
                self._start(sender)
            else:
                self._senders.pop(sender.host, None)

    async def _step(self, sender: Sender) -> bool:
        """One transaction. False: nothing to do, or it failed."""
        sender.more = False
        transaction = sender.pending or await self._next(sender)
        if transaction is None:
            return False
        sender.pending = transaction
        try:
            await self._send(sender.host, transaction)
            poisoned: list[Item] = []
        except RemoteRefused as error:
            if error.status not in (400, 413):
                await self._fail(sender, str(error))
                return False
            try:
                poisoned = await self._find_poison(sender.host, transaction.items)
            except FederationError as other:
                await self._fail(sender, str(other))
                return False
        except FederationError as error:
            await self._fail(sender, str(error))
            return False
        for item in poisoned:
            log.warning("set aside what a server won't take", destination=sender.host, json=item.json[:500])
        await self._done(sender, transaction)
        return True

    # -- one transaction ------------------------------------------------------------------------------

    async def _next(self, sender: Sender) -> Transaction | None:
        db = self._db.read
        row = destinations.get(db, sender.host)
        if row is None:
            await self._db.write(lambda tx: destinations.intern(tx, sender.host))
            row = destinations.get(db, sender.host)
            assert row is not None  # noqa: S101  (just written)
        items = [
            Item(edu.encode(), False, seq) for seq, edu in destinations.next_edus(db, row.host_nid, MAX_EDUS)
        ]
        for key in list(sender.fleeting)[: MAX_EDUS - len(items)]:
            items.append(Item(sender.fleeting.pop(key), False, None))
        items += [
            Item(pdu, True, seq)
            for seq, pdu in destinations.next_events(db, row.host_nid, row.cursor, MAX_PDUS)
        ]
        return self._transaction(items) if items else None

    def _transaction(self, items: list[Item]) -> Transaction:
        self._count += 1
        content: dict[str, Any] = {
            "origin": self._our_name,
            "origin_server_ts": self._runtime.clock.now_ms(),
            "pdus": [canonical.loads(item.json) for item in items if item.is_pdu],
        }
        edus = [canonical.loads(item.json) for item in items if not item.is_pdu]
        if edus:
            content["edus"] = edus
        return Transaction(f"{self._epoch}{self._count}", items, canonical.encode(content))

    async def _send(self, host: str, transaction: Transaction) -> None:
        answer = await self._client.send_transaction(
            host, transaction.txn_id, transaction.content, within=TIMEOUT_S
        )
        results = answer.get("pdus")
        for event_id, result in results.items() if isinstance(results, dict) else ():
            if isinstance(result, dict) and "error" in result:
                log.info("a server refused an event", destination=host, event=event_id, error=result["error"])

    async def _find_poison(self, host: str, items: list[Item]) -> list[Item]:
        """The items that the destination refuses, the others delivered. Raises FederationError if it is not they.

        The order of PDUs is kept: the first half goes before the second.
        """
        if len(items) == 1:
            await self._send(host, self._transaction([]))  # does it take anything at all?
            return items
        poisoned: list[Item] = []
        for part in _halves(items):
            try:
                await self._send(host, self._transaction(part))
            except RemoteRefused as error:
                if error.status not in (400, 413):
                    raise
                poisoned += await self._find_poison(host, part)
        return poisoned

    async def _done(self, sender: Sender, transaction: Transaction) -> None:
        cursors = [item.seq for item in transaction.items if item.is_pdu and item.seq is not None]
        edus = [item.seq for item in transaction.items if not item.is_pdu and item.seq is not None]
        now = self._runtime.clock.now_ms()
        recovered = sender.backoff_ms > 0
        if cursors or edus or recovered:

            def write(tx: Tx) -> None:
                host_nid = destinations.intern(tx, sender.host)
                destinations.delivered(tx, host_nid, cursor=max(cursors, default=None), edus=edus, now_ms=now)

            await self._db.write(write)
        sender.pending, sender.backoff_ms, sender.error = None, 0, ""
        if recovered:
            log.info("a server answers again", destination=sender.host)

    async def _fail(self, sender: Sender, error: str) -> None:
        now = self._runtime.clock.now_ms()
        row = destinations.get(self._db.read, sender.host)
        shares = row is not None and destinations.shares_a_room(self._db.read, row.host_nid)
        longest = LONGEST_PAUSE_MS if shares else LONGEST_PAUSE_STRANGER_MS
        sender.backoff_ms = min(max(FIRST_PAUSE_MS, sender.backoff_ms * 2), longest)
        pause = int(sender.backoff_ms * self._runtime.random.uniform(0.8, 1.2))
        sender.retry_at, sender.error = now + pause, error
        sender.fleeting.clear()
        sender.state = State.BACKING_OFF
        if pause > KEEP_BYTES_MS:
            sender.state, sender.pending = State.PARKED, None
        log.info("could not send to a server", destination=sender.host, error=error, pause_ms=pause)

        def write(tx: Tx) -> None:
            destinations.failed(
                tx,
                destinations.intern(tx, sender.host),
                now_ms=now,
                retry_at=now + pause,
                backoff_ms=sender.backoff_ms,
                error=error,
            )

        await self._db.write(write)
        self._retry_news.set()


def _halves(items: list[Item]) -> Iterable[list[Item]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]
