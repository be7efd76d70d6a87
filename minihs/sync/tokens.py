# SPDX-License-Identifier: Apache-2.0
"""Tokens that clients hand back: where a sync or a page of history goes on (client-server-api, "Syncing").

`s<pos>_<ephemeral>`  after everything up to `pos` of the one stream counter, and typing up to `ephemeral`. A
third number, `s<pos>_<ephemeral>_<to_device>`, says that to-device messages lag behind: there were more than
one answer carries. `t<topo>_<arrival>`   in a room, after the event at that place: everything up to (topo,
arrival) lies before the token.

Both survive restarts. Clients must treat them as opaque; hostile ones don't, so the numbers are bounded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from minihs.matrix.errors import invalid_param

MAX_NUMBER = 2**62

_SYNC = re.compile(r"s([0-9]{1,19})_([0-9]{1,19})(?:_([0-9]{1,19}))?", re.ASCII)
_PLACE = re.compile(r"t(-?[0-9]{1,19})_(-?[0-9]{1,19})", re.ASCII)


class SyncToken(NamedTuple):
    pos: int
    ephemeral: int = 0
    to_device: int | None = None
    """Up to where to-device messages were delivered, if that is not `pos`."""

    def __str__(self) -> str:
        text = f"s{self.pos}_{self.ephemeral}"
        return text if self.to_device is None else f"{text}_{self.to_device}"


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


def parse_place(text: str) -> Place | SyncToken:
    """A token for /messages, /members and the like: of either kind."""
    token = _parse_sync(text)
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
