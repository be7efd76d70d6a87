# SPDX-License-Identifier: Apache-2.0
"""What each client was sent over its connections of sliding sync (MSC4186, "Connections").

Of every room that a connection has told of, it is known up to which position. Positions don't go stale, so
a room that falls out of the client's sight and comes back goes on from where it was left, and what is
remembered changes only when something is delivered.

An answer counts as received when the client comes with its `pos`. Until then it is kept beside what the
client is known to have (`Connection.rooms`), so that a repeated request is answered from the same beginning.
Older positions than these two are unknown: the client starts over.

A connection is saved when a client comes back, once a minute at most, and only after something was delivered:
memory cards wear out. After a restart the client may so come with a later position than the one that was
saved. Then rooms in which something happened in between are told from the start once more; that is allowed,
and leaving something out would not be.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester
from minihs.runtime import Runtime
from minihs.store import account_data, room_activity, sliding, sync_rooms
from minihs.store.database import Database
from minihs.store.sliding import MAX_CONNECTIONS, SavedConnection
from minihs.sync.room_list import GONE
from minihs.sync.tokens import SlidingToken, SyncToken, parse_sliding_token

MAX_IN_MEMORY = 200
"""Connections of all devices; the one unused for longest goes, and is read from disk when it is used
again."""

MAX_ROOMS_IN_MEMORY = 50_000
"""Rooms remembered by all of them together, some 400 bytes each; beyond that the same."""

MAX_ANSWERS = 8
"""Answers of one connection that may be on their way: a client that gives up and repeats its request."""

SAVE_AFTER_MS = 60_000


class Known(NamedTuple):
    """What a client knows of a room."""

    upto: int
    """Everything up to this position. 0: it may have been told of the room, and is told all once more."""
    first: int
    """Of the timeline without a gap from this arrival on."""
    limit: int
    """The timeline_limit that this came of."""
    is_dm: bool | None
    """None: it was told something, we don't know what."""
    wishes: tuple[tuple[int, int], ...]
    """(number of a StateWish, position up to which it was fulfilled)."""
    receipts: int | None = None
    """Receipts up to this position; None: none so far."""
    data: int | None = None
    """Account data of the room, the same way."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A request that was answered completely: while nothing has changed, its rooms need no second look."""

    digest: bytes
    upto: int
    counts: Mapping[str, int]
    """list → how many rooms it has."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What an answer adds to what its client knows."""

    rooms: Mapping[int, Known] = field(default_factory=dict)
    data: int | None = None
    settled: Settled | None = None


@dataclass(slots=True)
class Connection:
    number: int
    token: SlidingToken | None = None
    """The client has the answer with this token. None: it has none yet."""
    rooms: dict[int, Known] = field(default_factory=dict)
    """room_nid → what the client knows of it."""
    data: int | None = None
    """Global account data up to this position."""
    settled: Settled | None = None
    answers: OrderedDict[SlidingToken, Delivery] = field(default_factory=OrderedDict)
    """Made since, from there on."""
    last_answer: int = 0
    saved_ms: int | None = None
    is_saved: bool = False

    @property
    def size(self) -> int:
        """Rooms remembered."""
        return len(self.rooms) + sum(len(delivery.rooms) for delivery in self.answers.values())


class Connections:
    """Lives on the event loop. `Connection.rooms` is only read elsewhere."""

    def __init__(self, db: Database, runtime: Runtime) -> None:
        self._db = db
        self._runtime = runtime
        self._kept: OrderedDict[tuple[str, str, str], Connection] = OrderedDict()

    def open(self, requester: Requester, conn_id: str, pos: str) -> Connection:
        """The connection as its client knows it. M_UNKNOWN_POS: the client has to start over."""
        if not pos:
            return Connection(int.from_bytes(self._runtime.random.token_bytes(5)))
        token = parse_sliding_token(pos)
        if token is None or token.at.pos > sync_rooms.current_pos(self._db.read):
            raise unknown_pos()
        key = requester.user_id, requester.device_id, conn_id
        connection = self._kept.get(key)
        if connection is None or connection.number != token.connection:
            connection = self._load(key, token)
            self._keep(key, connection)
        self._receive(connection, token)
        self._kept.move_to_end(key)
        return connection

    def finish(
        self,
        requester: Requester,
        conn_id: str,
        connection: Connection,
        token: SlidingToken | None,
        at: SyncToken,
        delivery: Delivery,
    ) -> SlidingToken:
        """An answer is on its way. `token`: that of the connection when the answer was begun."""
        connection.last_answer += 1
        new = SlidingToken(connection.number, connection.last_answer, at)
        if connection.token == token:  # else the client has gone on meanwhile, and won't look at this one
            connection.answers[new] = delivery
            while len(connection.answers) > MAX_ANSWERS:
                connection.answers.popitem(last=False)
        if token is None:
            self._keep((requester.user_id, requester.device_id, conn_id), connection)
        self._trim()
        return new

    async def save(self, requester: Requester, conn_id: str, connection: Connection) -> None:
        """If something was received, and it is time."""
        now = self._runtime.clock.now_ms()
        token = connection.token
        if token is None or connection.is_saved:
            return
        if connection.saved_ms is not None and now - connection.saved_ms < SAVE_AFTER_MS:
            return
        connection.saved_ms, connection.is_saved = now, True
        saved = SavedConnection(connection.number, token.answer, token.at.pos, _pack(connection))
        user_id, device_id = requester.user_id, requester.device_id
        try:
            await self._db.write(lambda tx: sliding.save(tx, user_id, device_id, conn_id, saved, now=now))
        except sqlite3.Error:
            # A full disk, say: reading goes on, and this is tried again.
            connection.is_saved = False

    def _load(self, key: tuple[str, str, str], token: SlidingToken) -> Connection:
        saved = sliding.load(self._db.read, *key)
        if saved is None or saved.number != token.connection:
            raise unknown_pos()
        if token.answer < saved.answer or token.at.pos < saved.pos:
            raise unknown_pos()
        connection = Connection(
            saved.number,
            token,
            last_answer=token.answer,
            saved_ms=self._runtime.clock.now_ms(),
            is_saved=True,
        )
        _unpack(saved.rooms, connection)
        if token.answer > saved.answer:
            self._allow_for(connection, key[0], saved.pos, token.at.pos)
        return connection

    def _allow_for(self, connection: Connection, user_id: str, since: int, upto: int) -> None:
        """Of what was told from when the connection was saved to the position that its client has, we know
        nothing: not even of which rooms."""
        db = self._db.read
        rooms = room_activity.of_user(db, user_id)
        unsure = room_activity.changed_between(db, user_id, since, upto)
        unsure |= {change.room_nid for change in sync_rooms.changes_between(db, user_id, since, upto)}
        for room in rooms:
            if room.room_nid in connection.rooms and room.room_nid not in unsure:
                continue
            span = sync_rooms.span_at(db, user_id, room.room_nid, upto)
            if span is not None and (span.membership not in GONE or span.pos > since):
                connection.rooms[room.room_nid] = Known(0, 0, 0, False, ())
        if account_data.changed_at(db, user_id, "m.direct") > since:
            for room_nid, known in connection.rooms.items():
                connection.rooms[room_nid] = known._replace(is_dm=None)

    def _receive(self, connection: Connection, token: SlidingToken) -> None:
        if connection.token == token:
            return
        delivery = connection.answers.get(token)
        if delivery is None:
            raise unknown_pos()
        if delivery.rooms or delivery.data != connection.data or connection.token is None:
            connection.is_saved = False
        connection.rooms.update(delivery.rooms)
        connection.data = delivery.data
        connection.settled = delivery.settled
        connection.token = token
        connection.answers.clear()

    def _keep(self, key: tuple[str, str, str], connection: Connection) -> None:
        self._kept[key] = connection
        self._kept.move_to_end(key)
        of_device = [each for each in self._kept if each[:2] == key[:2]]
        for oldest in of_device[: max(0, len(of_device) - MAX_CONNECTIONS)]:
            del self._kept[oldest]

    def _trim(self) -> None:
        size = sum(connection.size for connection in self._kept.values())
        while len(self._kept) > MAX_IN_MEMORY or (size > MAX_ROOMS_IN_MEMORY and len(self._kept) > 1):
            _, oldest = self._kept.popitem(last=False)
            size -= oldest.size


def unknown_pos() -> MatrixError:
    return MatrixError(400, "M_UNKNOWN_POS", "This position is unknown: start over without one.")


def _pack(connection: Connection) -> bytes:
    rooms = [[room_nid, *known] for room_nid, known in connection.rooms.items()]
    return zlib.compress(orjson.dumps([connection.data, rooms]))


def _unpack(packed: bytes, connection: Connection) -> None:
    data, rooms = orjson.loads(zlib.decompress(packed))
    connection.data = data
    connection.rooms = {row[0]: _known(row[1:]) for row in rooms}


def _known(values: list[Any]) -> Known:
    upto, first, limit, is_dm, wishes, receipts, data = values
    return Known(upto, first, limit, is_dm, tuple((wish, pos) for wish, pos in wishes), receipts, data)
