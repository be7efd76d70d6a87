# SPDX-License-Identifier: Apache-2.0
"""Tokens that clients hand back: where a sync or a page of history goes on (client-server-api, "Syncing").

`s<pos>_<ephemeral>`  after everything up to `pos` of the one stream counter, and typing up to `ephemeral`. A
third number, `s<pos>_<ephemeral>_<to_device>`, says that to-device messages lag behind: there were more than
one answer carries. `t<topo>_<arrival>`   in a room, after the event at that place: everything up to (topo,
arrival) lies before the token. `c<connection>-<answer>-s<pos>_<ephemeral>`  the same as the first, of one
connection of sliding sync, after one of its answers.

All survive restarts. Clients must treat them as opaque; hostile ones don't, so the numbers are bounded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from minihs.matrix.errors import invalid_param

MAX_NUMBER = 2**62

_SYNC = re.compile(r"s([0-9]{1,19})_([0-9]{1,19})(?:_([0-9]{1,19}))?", re.ASCII)
_SLIDING = re.compile(r"c([0-9]{1,19})-([0-9]{1,19})-(s[0-9_]+)", re.ASCII)
_PLACE = re.compile(r"t(-?[0-9]{1,19})_(-?[0-9]{1,19})", re.ASCII)


class SyncToken(NamedTuple):
    pos: int
    ephemeral: int = 0
    to_device: int | None = None
    """Up to where to-device messages were delivered, if that is not `pos`."""

    def __str__(self) -> str:
        text = f"s{self.pos}_{self.ephemeral}"
        return text if self.to_device is None else f"{text}_{self.to_device}"


class SlidingToken(NamedTuple):
    """`pos` of sliding sync (MSC4186)."""

    connection: int
    """The connection's number: random, so that one that was started anew has another."""
    answer: int
    """Answers of a connection are counted."""
    at: SyncToken

    def __str__(self) -> str:
        return f"c{self.connection}-{self.answer}-{self.at}"


class Place(NamedTuple):
    """A cut in a room's history: events with (topo, arrival) ≤ this lie before it."""

    topo: int
    arrival: int

    def __str__(self) -> str:
        return f"t{self.topo}_{self.arrival}"

    def before(self) -> Place:
        """The cut on the other side of the event that is here."""
        return Place(self.topo, self.arrival - 1)


def parse_sync_token(text: str) -> SyncToken:
    token = _parse_sync(text)
    if token is None:
        raise invalid_param("The sync token is malformed.")
    return token


def parse_sliding_token(text: str) -> SlidingToken | None:
    match = _SLIDING.fullmatch(text)
    at = None if match is None else _parse_sync(match[3])
    if match is None or at is None or max(int(match[1]), int(match[2])) > MAX_NUMBER:
        return None
    return SlidingToken(int(match[1]), int(match[2]), at)


def parse_place(text: str) -> Place | SyncToken:
    """A token for /messages, /members and the like: of any kind."""
    sliding = parse_sliding_token(text)
    token = _parse_sync(text) if sliding is None else sliding.at
    if token is not None:
        return token
    match = _PLACE.fullmatch(text)
    if match is None:
        raise invalid_param("The pagination token is malformed.")
    topo, arrival = int(match[1]), int(match[2])
    if max(abs(topo), abs(arrival)) > MAX_NUMBER:
        raise invalid_param("The pagination token is malformed.")
    return Place(topo, arrival)


def _parse_sync(text: str) -> SyncToken | None:
    match = _SYNC.fullmatch(text)
    if match is None:
        return None
    pos, ephemeral = int(match[1]), int(match[2])
    to_device = int(match[3]) if match[3] else None
    if max(pos, ephemeral, to_device or 0) > MAX_NUMBER:
        return None
    return SyncToken(pos, ephemeral, to_device)
