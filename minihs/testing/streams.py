# SPDX-License-Identifier: Apache-2.0
"""One TCP connection of the in-memory internet: two pipes over a link that may be slow, lossy or cut."""

from __future__ import annotations

import operator
import random
from collections import deque
from dataclasses import dataclass, field
from weakref import WeakSet

import trio

WINDOW = 256 * 1024
"""Bytes on the way in one direction before the sender has to wait."""

RETRANSMIT = 0.2
"""Seconds that a lost piece comes later; doubled for each further loss."""


@dataclass(eq=False)
class Link:
    """The wire between two hosts, both directions, and what went over it."""

    random: random.Random
    latency: float = 0.0
    """Seconds one way."""
    loss: float = 0.0
    """How probable it is that a piece has to be sent again."""
    cut: bool = False
    """Nothing goes through, and nobody is told: connections stall and connecting takes for ever."""
    connections: int = 0
    refused: int = 0
    bytes: int = 0
    _pipes: WeakSet[Pipe] = field(default_factory=WeakSet)
    _changed: trio.Event = field(default_factory=trio.Event)

    def set_cut(self, cut: bool) -> None:
        self.cut = cut
        self._changed.set()
        self._changed = trio.Event()
        for pipe in list(self._pipes):
            pipe.notify()

    async def until_whole(self) -> None:
        while self.cut:
            await self._changed.wait()

    def delay(self) -> float:
        """Seconds that the next piece takes."""
        total, again = self.latency, RETRANSMIT
        while self.loss and self.random.random() < self.loss and again < 60:
            total += again
            again *= 2
        return total


class Pipe:
    """One direction. Pieces arrive in order, each when its time has come and the link is whole."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._last_arrival = 0.0
        self._ended = False
        self.broken = False
        self._changed = trio.Event()
        link._pipes.add(self)

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def end(self) -> None:
        """The sender has said all."""
        self._ended = True
        self.notify()

    def break_(self) -> None:
        """Reset: what is on the way is lost."""
        self.broken = True
        self._pieces.clear()
        self.notify()

    async def until_room(self) -> None:
        while self._size >= WINDOW and not self.broken and not self._ended:
            await self._changed.wait()

    async def send(self, data: bytes) -> None:
        await self.until_room()
        if self._ended:
            raise trio.ClosedResourceError("this end was closed")
        if self.broken:
            raise trio.BrokenResourceError("the connection was reset")
        # A piece never overtakes the one before it.
        self._last_arrival = max(self._last_arrival, trio.current_time() + self._link.delay())
        self._pieces.append((self._last_arrival, bytes(data)))
        self._size += len(data)
        self._link.bytes += len(data)
        self.notify()

    async def receive(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.readable():
            arrival = self._pieces[0][0] if self._pieces and not self._link.cut else float("inf")
            with trio.move_on_at(arrival):
                await self._changed.wait()
        if self.broken:
            raise trio.BrokenResourceError("the connection was reset")
        if not self._pieces:
            return b""
        arrival, piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft((arrival, piece[max_bytes:]))
            piece = piece[:max_bytes]
        self._size -= len(piece)
        self.notify()
        return piece

    def readable(self) -> bool:
        """Whether `receive` would return (or raise) at once."""
        if self.broken:
            return True
        if self._link.cut:
            return False
        if self._pieces:
            return self._pieces[0][0] <= trio.current_time()
        return self._ended


class LinkStream(trio.abc.HalfCloseableStream):
    """One end of a connection."""

    def __init__(self, outgoing: Pipe, incoming: Pipe) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._closed = False
        self._eof_sent = False
        self._sending = False
        self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            for start in range(0, len(view), WINDOW):
                self._check_open()
                await self._outgoing.send(bytes(view[start : start + WINDOW]))
            self._check_open()
        finally:
            self._sending = False

    def _check_open(self) -> None:
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError("this end was closed")

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_open()
            await self._outgoing.until_room()
            self._check_open()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        if operator.index(1 if max_bytes is None else max_bytes) < 1:
            await trio.lowlevel.checkpoint()
            raise ValueError("max_bytes must be at least 1")
        self._receiving = True
        try:
            data = await self._incoming.receive(65536 if max_bytes is None else max_bytes)
        except trio.BrokenResourceError:
            if self._closed:
                raise trio.ClosedResourceError("this end was closed") from None
            raise
        finally:
            self._receiving = False
        return data

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        self._eof_sent = True
        self._outgoing.end()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._outgoing.end()
            self._incoming.break_()  # the other side finds out when it sends
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break both directions at once, as when a machine dies."""
        self._outgoing.break_()
        self._incoming.break_()

    def is_readable(self) -> bool:
        return self._incoming.readable()


def connection(link: Link) -> tuple[LinkStream, LinkStream]:
    """Both ends of a new connection."""
    there, back = Pipe(link), Pipe(link)
    return LinkStream(there, back), LinkStream(back, there)
