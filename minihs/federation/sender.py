# SPDX-License-Identifier: Apache-2.0
"""One destination: what is known of it in memory while it has work or fails. The policy is told in
`senders.py`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from minihs.federation.transaction import Batch

MAX_FLEETING = 200
"""Fleeting EDUs kept for one destination; the oldest go first."""

STALE_TYPING_MS = 30_000
STALE_MS = 3600_000
"""Fleeting EDUs older than this are not sent any more."""


class State(Enum):
    SENDING = "sending"
    BACKING_OFF = "backing off"
    PARKED = "parked"


class Sender:
    """Mutable state of one destination; touched by its own task while that runs, else by `Senders`."""

    __slots__ = (
        "backoff_ms",
        "batch",
        "error",
        "fleeting",
        "fleeting_next",
        "greets",
        "heard",
        "host",
        "more",
        "retry_at",
        "running",
        "state",
        "untried",
    )

    def __init__(self, host: str) -> None:
        self.host = host
        self.state = State.SENDING
        self.running = False
        """It has a task, or waits for its turn to get one."""
        self.more = False
        """Work came while the task was looking."""
        self.greets = False
        """The destination is to hear from us even if there is nothing to send."""
        self.batch: Batch | None = None
        """What is on its way, or to be sent again as it is."""
        self.fleeting: dict[tuple[str, ...], tuple[int, bytes]] = {}
        """(type, key) to (time, EDU)."""
        self.fleeting_next = False
        """Something durable was sent last: the fleeting ones have their turn."""
        self.untried = False
        """It is known that no attempt was made to send what comes next: it may go together."""
        self.backoff_ms = 0
        self.retry_at = 0
        self.heard = False
        """It spoke to us since it failed."""
        self.error = ""

    @property
    def has_work(self) -> bool:
        """Something in memory is still to be sent; what is on disk is another matter."""
        return bool(self.fleeting) or self.batch is not None

    def add_fleeting(self, key: tuple[str, ...], edu: bytes, now_ms: int) -> None:
        self.fleeting.pop(key, None)
        self.fleeting[key] = (now_ms, edu)
        while len(self.fleeting) > MAX_FLEETING:
            del self.fleeting[next(iter(self.fleeting))]

    def take_fleeting(self, limit: int, now_ms: int) -> list[tuple[str, bytes]]:
        """(type, EDU) of the oldest ones that still matter."""
        taken: list[tuple[str, bytes]] = []
        for key in list(self.fleeting):
            if len(taken) >= limit:
                break
            made, edu = self.fleeting.pop(key)
            if now_ms - made <= (STALE_TYPING_MS if key[0] == "m.typing" else STALE_MS):
                taken.append((key[0], edu))
        return taken

    def describe(self, now_ms: int) -> str:
        """For operators and logs."""
        text = f"{self.host}: {self.state.value}"
        if self.state is not State.SENDING:
            text += f", next try in {duration(max(0, self.retry_at - now_ms))}, last error: {self.error}"
        if self.fleeting:
            text += f", {len(self.fleeting)} fleeting EDUs"
        return text

    def __repr__(self) -> str:
        pause = "" if self.state is State.SENDING else f" {duration(self.backoff_ms)} ({self.error})"
        return f"<Sender {self.host}: {self.state.value}{pause}>"


@dataclass(slots=True, eq=False)
class Lane:
    """Destinations of one kind: those that wait for a task, and how many have one."""

    most: int
    waiting: deque[Sender] = field(default_factory=deque)
    active: int = 0

    @property
    def is_clear(self) -> bool:
        """The first that waits may go."""
        return bool(self.waiting) and self.active < self.most


def duration(milliseconds: float) -> str:
    seconds = int(milliseconds / 1000)
    for size, unit in ((24 * 3600, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
