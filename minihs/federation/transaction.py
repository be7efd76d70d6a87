# SPDX-License-Identifier: Apache-2.0
"""What is sent to a destination in one go: the items, the bytes they become, and how a batch is taken apart
when the destination refuses it (spec: server-server-api, "Transactions")."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from minihs.matrix import canonical


@dataclass(frozen=True, slots=True)
class Item:
    """One PDU or EDU."""

    json: bytes
    """Canonical."""
    is_pdu: bool
    seq: int | None
    """Of the outbound event or the durable EDU; None: fleeting."""
    name: str = ""
    """For the log: the event id, or the type of EDU."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Bytes, and their id."""

    txn_id: str
    items: tuple[Item, ...]
    content: bytes


def make_transaction(origin: str, now_ms: int, items: Sequence[Item]) -> Transaction:
    """The id is the hash of the content: so it never stands for another, whatever happens to our disk."""
    edus = [item.json for item in items if not item.is_pdu]
    pdus = [item.json for item in items if item.is_pdu]
    parts = [
        b'"origin":' + canonical.encode(origin),
        b'"origin_server_ts":%d' % now_ms,
        b'"pdus":[' + b",".join(pdus) + b"]",
    ]
    if edus:
        parts.insert(0, b'"edus":[' + b",".join(edus) + b"]")
    content = b"{" + b",".join(parts) + b"}"
    txn_id = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return Transaction(txn_id, tuple(items), content)


@dataclass(slots=True)
class Batch:
    """Items on their way, in the fewest transactions that the destination takes.

    Refused, a transaction is cut in halves, which go one after the other, so that the order of PDUs stays.
    What is refused alone is suspected. If something else of the batch passes, or the destination takes an
    empty transaction but not this one item, then the suspects are at fault, and are given up. If nothing
    passes, it is the destination.
    """

    origin: str
    now_ms: int
    items: tuple[Item, ...]
    cursor: int | None
    """Where the destination stands in the order of PDUs once this batch is through."""
    is_full: bool
    """More is waiting than fits: then the batch must not hold it up for ever. Or it does no harm to lose
    it."""
    parts: deque[Transaction] = field(default_factory=deque)
    suspects: list[Item] = field(default_factory=list)
    passed: bool = False
    controlled: bool = False

    def __post_init__(self) -> None:
        self._start_over()

    @property
    def current(self) -> Transaction | None:
        """What to send next; None: the batch is through."""
        return self.parts[0] if self.parts else None

    @property
    def is_durable(self) -> bool:
        """It holds something that must not be lost."""
        return any(item.seq is not None for item in self.items)

    @property
    def size(self) -> int:
        return sum(len(part.content) for part in self.parts)

    def accept(self) -> bool:
        """The destination took `current`. False: yet the batch can't be delivered, by no fault of its
        items."""
        part = self.parts.popleft()
        self.passed = self.passed or bool(part.items) or self.controlled
        return self._settle()

    def refuse(self) -> bool:
        """The destination blames the content of `current`. False: it is the destination that is at fault."""
        part = self.parts.popleft()
        if not part.items:
            self._start_over()
            return False
        if len(part.items) == 1:
            self.suspects.append(part.items[0])
            return self._settle()
        middle = len(part.items) // 2
        self.parts.extendleft((self._make(part.items[middle:]), self._make(part.items[:middle])))
        return True

    def _settle(self) -> bool:
        if self.parts or not self.suspects or self.passed:
            return True
        if len(self.items) == 1 or self.is_full:
            self.controlled = True
            self.parts.append(self._make(()))
            return True
        # Nothing else is waiting that it could hold up. Perhaps something will, and shows who is at fault.
        self._start_over()
        return False

    def _start_over(self) -> None:
        self.suspects, self.passed, self.controlled = [], False, False
        self.parts = deque([self._make(self.items)])

    def _make(self, items: Sequence[Item]) -> Transaction:
        return make_transaction(self.origin, self.now_ms, items)
