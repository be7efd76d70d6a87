# SPDX-License-Identifier: Apache-2.0
"""Sending to other servers (spec: server-server-api, "Transactions").

The policy, which the code follows:

- A destination has a task only while it sends. An idle one has no record in memory at all, one that fails has
  a record and an entry in the list of times to try again.
- A transaction holds at most 50 PDUs and 100 EDUs: to-device messages first, then device lists, and PDUs in
  the order in which they were made. Only one is under way to a destination at a time.
- What must not be lost is on disk: PDUs behind a cursor, durable EDUs in a table. The cursor is written back
  within a second of the 200. What is fleeting (receipts, typing, presence) is in memory, a later EDU in the
  place of an earlier one with its key; it goes in transactions of its own, in turn with the others.
- A transaction that was begun is sent again as it was, bytes and id, until it is answered: after a failure, a
  restart, a kill or a week. Its id is the hash of its bytes, so that an id never stands for two contents, not
  even after a backup was restored. Its bytes follow from what is on disk:
  - One PDU by itself, the next after a cursor that is on disk, with the time at which it was stored. Nothing
    has to be written for that. It is how a message goes into a room of 2,000 servers, and each first
    transaction to a destination of which there was no record: what is more goes with the next.
  - All else is written down before it is sent: a place in the order of sending, the durable EDUs and the
    time, in the destination's row. Those that begin at the same time share the commit.
- 400 and 413 blame the content. The transaction is cut in halves until the items are found that the
  destination won't take (`transaction.Batch`). They are given up when others have passed, or when the
  destination takes an empty transaction; otherwise it is the destination that is at fault.
- Every other failure is the destination's: time-outs, wrong certificates, a proxy's 404, 403, 429, 5xx, an
  answer that isn't JSON. The same bytes are sent again under the same transaction id.
- The pause before the next attempt doubles each time, with some chance in it, so that not all come back at
  once: up to a day for a server with which we share a room, a week for others. A destination whose pause is
  an hour or more is parked: nothing is kept of it in memory but the time, and the transaction is made from
  disk again.
- A rightly signed request by the destination shows that it lives: its pause ends at once.
- After an absence, those who share a room with us are sent an empty transaction if there is nothing else for
  them: who gave us up tries again.
- After a restart, destinations with work start spread over up to a minute, those that answered last first. At
  most 40 destinations that we have no connection to are tried at the same time, and 200 in all. Those that
  failed the last time have 20 places of their own: each may hold one until its time is over.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection
from typing import Protocol

import structlog
import trio

from minihs.federation.outgoing import Outgoing
from minihs.federation.sender import Lane, Sender, State
from minihs.federation.transaction import Batch
from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.federation_errors import FederationError, RemoteRefused
from minihs.runtime import Runtime
from minihs.store import destinations, uptime
from minihs.store.database import Database, Tx

log = structlog.get_logger(__name__)

FIRST_PAUSE_MS = 2_000
LONGEST_PAUSE_MS, LONGEST_PAUSE_STRANGER_MS = 24 * 3600_000, 7 * 24 * 3600_000
LONGEST_ASKED_MS = 3600_000
"""A pause that the destination asks for (`retry_after_ms`) counts up to this."""
PARK_MS = 3600_000
MAX_KEPT_BYTES = 32 * 1024 * 1024
"""Bytes of transactions that wait to be sent again, of all destinations together."""

TIMEOUT = 60.0
MAX_ACTIVE, MAX_UNCONNECTED, MAX_FAILING = 200, 40, 20
LONGEST_SLEEP = 3600.0
"""Seconds after which the wall clock is looked at again: it may have been set."""
RESTART_SPREAD = 60.0
RESTART_STEP = 0.1
"""Seconds between two destinations after a restart."""
MAX_CACHED_SETS = 200
SHORT_ABSENCE_MS = 5 * 60_000
MAX_GREETED = 1_000
GREETING_STEP = 0.5
"""Seconds between two greetings."""


class Client(Protocol):
    async def send_transaction(
        self, host: str, txn_id: str, content: bytes, *, within: float
    ) -> JsonObject: ...

    def is_connected(self, host: str) -> bool: ...


class Senders:
    """Mutable state: the records, and the two lists of who waits for what; touched on the loop only."""

    def __init__(self, our_name: str, db: Database, runtime: Runtime, client: Client) -> None:
        self._our_name = our_name
        self._db = db
        self._runtime = runtime
        self._client = client
        self._senders: dict[str, Sender] = {}
        self._connected, self._unconnected = Lane(MAX_ACTIVE), Lane(MAX_UNCONNECTED)
        self._failing = Lane(MAX_FAILING)
        self._retries: list[tuple[int, int, Sender]] = []
        self._retry_count = itertools.count()
        self._retry_news = trio.Event()
        self._outgoing = Outgoing(our_name, db, runtime)
        self._nursery: trio.Nursery | None = None
        self._sets: dict[int, list[str]] = {}
        db.on_commit(self._on_commit)

    def __repr__(self) -> str:
        return f"<Senders: {len(self._senders)} destinations, {self._active} sending>"

    @property
    def _active(self) -> int:
        return self._connected.active + self._unconnected.active + self._failing.active

    # -- for operators --

    def state_of(self, host: str) -> str:
        """What goes on with a destination, in one line."""
        sender = self._senders.get(host)
        text = f"{host}: idle" if sender is None else sender.describe(self._runtime.clock.now_ms())
        pdus, edus = self._outgoing.waiting(host)
        return f"{text}, {pdus} PDUs and {edus} EDUs wait"

    def failing(self) -> list[str]:
        """The destinations that don't answer."""
        return [host for host, sender in self._senders.items() if sender.state is not State.SENDING]

    def retry_now(self, host: str) -> None:
        """End the pause of a destination."""
        self.heard_from(host)
        self.wake(host)

    # -- what wakes a sender --

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
            if len(self._sets) >= MAX_CACHED_SETS:
                self._sets.clear()
            hosts = self._sets[nid] = destinations.hosts_of_set(self._db.read, nid)
        return hosts

    def wake(self, host: str, *, greet: bool = False) -> None:
        """There is work for this destination; or it is to hear from us even if there is none."""
        if host == self._our_name or self._nursery is None:
            return
        sender = self._senders.get(host)
        if sender is None:
            sender = self._senders[host] = self._load(host)
        sender.more = True
        sender.greets = sender.greets or greet
        if sender.state is State.SENDING:
            self._start(sender)

    def _load(self, host: str) -> Sender:
        """A record for a destination that had none; it may have been failing before a restart."""
        sender = Sender(host)
        row = destinations.get(self._db.read, host)
        if row is not None and row.retry_at is not None:
            sender.backoff_ms, sender.error = row.backoff_ms, row.last_error or ""
            now = self._runtime.clock.now_ms()
            # A clock that was set back must not make the pause longer than it can be.
            pause = min(row.retry_at - now, LONGEST_PAUSE_STRANGER_MS)
            if pause > 0:
                sender.state = State.PARKED
                self._retry_at(sender, now + pause)
        return sender

    def queue_edu(
        self, hosts: Collection[str], edu_type: str, content: JsonObject, *, key: tuple[str, ...]
    ) -> None:
        """Send an EDU that may be lost. A later one with the same key takes the place of one not yet sent."""
        edu = canonical.encode({"edu_type": edu_type, "content": content})
        now = self._runtime.clock.now_ms()
        for host in hosts:
            self.wake(host)
            sender = self._senders.get(host)
            if sender is not None and sender.state is not State.PARKED:
                sender.add_fleeting((edu_type, *key), edu, now)

    def heard_from(self, host: str) -> None:
        """The server sent us a rightly signed request: it is up, whatever happened before."""
        sender = self._senders.get(host)
        if sender is not None:
            sender.heard = True
        if sender is not None and sender.state is State.SENDING:
            if sender.backoff_ms and sender in self._failing.waiting:
                self._failing.waiting.remove(sender)
                self._unconnected.waiting.append(sender)
                self._start_ready()
            return
        row = destinations.get(self._db.read, host)
        if row is not None and row.retry_at is not None and self._nursery is not None:
            # What is on disk would hold for the next message, if there is nothing to send now.
            self._nursery.start_soon(self._db.write, lambda tx: destinations.heard_from(tx, host))
        if sender is not None:
            self._resume(sender)

    # -- tasks --

    async def run(self) -> None:
        """Send until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._retry)
                nursery.start_soon(self._outgoing.flush)
                nursery.start_soon(self._outgoing.tidy)
                await self._restart()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _restart(self) -> None:
        """Take up what was left, not all at once; then let the others see that we are back."""
        last = uptime.last_sign_of_life(self._db.read)
        hosts = await self._db.scan(destinations.with_work)
        step = min(RESTART_STEP, RESTART_SPREAD / max(1, len(hosts)))
        for host in hosts:
            self.wake(host)
            await trio.sleep(step)
        if last is not None and self._runtime.clock.now_ms() - last >= SHORT_ABSENCE_MS:
            await self._greet()

    async def _greet(self) -> None:
        """An empty transaction to those who share a room with us and would not hear from us otherwise.

        Who gave us up while we were down tries again.
        """
        now = self._runtime.clock.now_ms()
        for host in await self._db.scan(lambda db: uptime.room_mates(db, MAX_GREETED)):
            row = destinations.get(self._db.read, host)
            told = row is not None and row.last_success is not None and row.last_success >= now
            if host != self._our_name and not told:
                self.wake(host, greet=True)
                await trio.sleep(GREETING_STEP)

    def _start(self, sender: Sender) -> None:
        """Give it a task as soon as there is room for one."""
        if not sender.running:
            sender.running = True
            self._lane(sender).waiting.append(sender)
            self._start_ready()

    def _lane(self, sender: Sender) -> Lane:
        if self._client.is_connected(sender.host):
            return self._connected
        return self._failing if sender.backoff_ms and not sender.heard else self._unconnected

    def _start_ready(self) -> None:
        while self._nursery is not None and self._active < MAX_ACTIVE:
            clear = (lane for lane in (self._connected, self._unconnected, self._failing) if lane.is_clear)
            if (lane := next(clear, None)) is None:
                return
            lane.active += 1
            self._nursery.start_soon(self._work, lane.waiting.popleft(), lane)

    async def _work(self, sender: Sender, lane: Lane) -> None:
        """Send what there is; end when there is nothing more, or the destination fails."""
        try:
            going = True
            while going:
                # Whatever came since the last look has set `more`.
                going = await self._step(sender) and (sender.has_work or sender.more)
                if going and lane is not self._connected:
                    lane.active -= 1
                    lane = self._connected
                    lane.active += 1
                    self._start_ready()
        except Exception as error:  # the boundary of one destination: the others go on
            log.error("a sender failed", destination=sender.host, exc_info=error)
            await self._fail(sender, f"internal error: {type(error).__name__}")
        finally:
            sender.running = False
            lane.active -= 1
            self._start_ready()
        if sender.state is State.SENDING:
            if sender.more or sender.has_work:
                self._start(sender)
            else:
                del self._senders[sender.host]

    async def _step(self, sender: Sender) -> bool:
        """One transaction. False: there was nothing to send, or it failed."""
        if sender.batch is None:
            sender.more = False
            sender.batch = await self._outgoing.next_batch(sender)
            if sender.batch is None:
                return False
        batch = sender.batch
        transaction = batch.current
        assert transaction is not None  # noqa: S101 -- a batch that is through is let go of at once, below
        try:
            answer = await self._client.send_transaction(
                sender.host, transaction.txn_id, transaction.content, within=TIMEOUT
            )
        except RemoteRefused as error:
            if error.status not in (400, 413):
                asked = error.body.get("retry_after_ms")
                await self._fail(sender, str(error), asked_ms=asked if type(asked) is int else 0)
                return False
            if not batch.refuse():
                await self._fail(sender, str(error), blamed=True)
                return False
        except FederationError as error:
            await self._fail(sender, str(error))
            return False
        else:
            _log_refused_events(sender.host, answer)
            if not batch.accept():
                await self._fail(sender, "refuses everything but empty transactions", blamed=True)
                return False
        if batch.current is None:
            await self._done(sender, batch)
        return True

    # -- how it went --

    async def _done(self, sender: Sender, batch: Batch) -> None:
        """The destination has it all, but for what was given up."""
        for item in batch.suspects:
            log.warning("gave up what a server won't take", destination=sender.host, item=item.name)
        recovered = sender.backoff_ms > 0
        sender.untried = sender.untried or any(item.is_pdu for item in batch.items)
        sender.batch, sender.backoff_ms, sender.error = None, 0, ""
        await self._outgoing.delivered(sender.host, batch, at_once=recovered)
        if recovered:
            log.info("a server answers again", destination=sender.host)

    async def _fail(self, sender: Sender, error: str, *, asked_ms: int = 0, blamed: bool = False) -> None:
        """Pause, longer than the last time. `blamed`: what was sent, and by itself it can't be helped."""
        now = self._runtime.clock.now_ms()
        shares = destinations.shares_a_room(self._db.read, sender.host)
        longest = LONGEST_PAUSE_MS if shares else LONGEST_PAUSE_STRANGER_MS
        sender.backoff_ms = min(max(FIRST_PAUSE_MS, sender.backoff_ms * 2), longest)
        pause = int(sender.backoff_ms * self._runtime.random.uniform(0.8, 1.2))
        pause = max(pause, min(asked_ms, LONGEST_ASKED_MS))
        sender.error, sender.heard = error[:500], False
        sender.more = True
        sender.state = State.BACKING_OFF
        if pause >= PARK_MS:
            sender.state = State.PARKED
            sender.fleeting.clear()
        if blamed and sender.batch is not None:
            # The next transaction is another: perhaps more waits by then, and shows what is at fault.
            sender.untried = sender.untried or sender.batch.is_durable
            sender.batch = None
        elif sender.state is State.PARKED or self._kept_bytes() > MAX_KEPT_BYTES:
            sender.batch, sender.untried = None, False
        if sender.batch is not None and not sender.batch.items:
            sender.batch = None  # a greeting is not repeated
        self._retry_at(sender, now + pause)
        log.info("could not send to a server", destination=sender.host, error=error, pause_ms=pause)

        def write(tx: Tx) -> None:
            destinations.failed(
                tx, sender.host, now_ms=now, retry_at=now + pause, backoff_ms=sender.backoff_ms, error=error
            )

        await self._db.write(write)

    def _kept_bytes(self) -> int:
        return sum(sender.batch.size for sender in self._senders.values() if sender.batch is not None)

    # -- time --

    def _retry_at(self, sender: Sender, when: int) -> None:
        sender.retry_at = when
        heapq.heappush(self._retries, (when, next(self._retry_count), sender))
        self._retry_news.set()

    async def _retry(self) -> None:
        """End the pauses of failing destinations when they are over."""
        while True:
            self._retry_news = trio.Event()
            now = self._runtime.clock.now_ms()
            while self._retries and self._retries[0][0] <= now:
                when, _, sender = heapq.heappop(self._retries)
                if sender.state is not State.SENDING and sender.retry_at == when:
                    self._resume(sender)
            pause = (self._retries[0][0] - now) / 1000 if self._retries else float("inf")
            with trio.move_on_after(min(max(0.01, pause), LONGEST_SLEEP)):
                await self._retry_news.wait()

    def _resume(self, sender: Sender) -> None:
        sender.state = State.SENDING
        self._start(sender)


def _log_refused_events(host: str, answer: JsonObject) -> None:
    results = answer.get("pdus")
    for event_id, result in results.items() if isinstance(results, dict) else ():
        if isinstance(result, dict) and "error" in result:
            log.info("a server refused an event", destination=host, event_id=event_id, error=result["error"])
