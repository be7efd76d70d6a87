# SPDX-License-Identifier: Apache-2.0
"""The checks that need nothing but the event and keys: format, room, signatures, content hash.

Every path by which an event of another server reaches us goes through `admit`, and says which one it is
(`Source`): what comes next depends on it. Spec: server-server-api, "Checks performed on receipt of a PDU",
1–3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

import trio

from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event, EventError
from minihs.matrix.federation_errors import KeyUnavailable
from minihs.matrix.hashes import has_right_content_hash, id_of_refused, is_unchanged
from minihs.matrix.room_versions import RoomVersion
from minihs.rooms.ports import Keys
from minihs.runtime import Runtime

_BATCH = 250
"""Events that are decoded and hashed in one go."""
_FEW = 50
"""So many are done on the loop; more in a worker thread."""
_SLICE = 5
"""Of those on the loop, so many at once."""

type Pause = Callable[[float], Awaitable[None]]
"""Lets others have their turn; is told when the work before it began (time of trio's)."""


class Source(Enum):
    """How an event came to us, and so which checks it must pass: `CHECKS` has a row for each."""

    TRANSACTION = auto()
    MISSING_EVENTS = auto()
    MEMBERSHIP = auto()
    """Handed in by send_join, send_leave or send_knock."""
    BACKFILL = auto()
    STATE = auto()
    """The state at a gap, from state, state_ids and event."""
    AUTH_CHAIN = auto()
    """From event_auth, or event."""
    SEND_JOIN_ANSWER = auto()
    COUNTERSIGNED = auto()
    """Our own event, as a send_join or invite gives it back with another server's signature."""
    OWN_JOIN = auto()
    """The same, of a join by an invite that shows that our current state is behind."""
    INVITE = auto()
    """What else it must be is in rooms/invites.py."""
    SHOWN_STATE = auto()
    """What an invite, or the answer to a knock, shows of a room (rooms/shown_state.py)."""

    __hash__ = object.__hash__  # there is one of each; what Enum has is a call, and each PDU asks five times

    @property
    def checks(self) -> tuple[str, ...]:
        return CHECKS[self]


_BY_ITSELF = ("format", "room", "signatures", "hash")
"""What `admit` checks. An event whose hash is wrong is redacted, one that fails otherwise is dropped."""

CHECKS: dict[Source, tuple[str, ...]] = {
    # auth_events: it is allowed by its own auth events; before: by the state before it; current: by the
    # current state, else it is soft-failed; policy: signed by the room's policy server, else the same.
    Source.TRANSACTION: (*_BY_ITSELF, "auth_events", "before", "current", "policy"),
    Source.MISSING_EVENTS: (*_BY_ITSELF, "auth_events", "before", "current", "policy"),
    Source.MEMBERSHIP: (*_BY_ITSELF, "auth_events", "before", "current", "policy"),
    Source.BACKFILL: (*_BY_ITSELF, "auth_events", "before"),
    Source.STATE: (*_BY_ITSELF, "auth_events"),
    Source.AUTH_CHAIN: (*_BY_ITSELF, "auth_events"),
    Source.SEND_JOIN_ANSWER: (*_BY_ITSELF, "auth_events"),
    Source.COUNTERSIGNED: (*_BY_ITSELF, "auth_events", "before", "current", "policy"),
    Source.OWN_JOIN: (*_BY_ITSELF, "auth_events", "before", "policy"),
    Source.INVITE: _BY_ITSELF,
    Source.SHOWN_STATE: _BY_ITSELF,
}


class Reason(Enum):
    """Which of the checks refused a PDU."""

    FORMAT = auto()
    ROOM = auto()
    SIGNATURE = auto()
    KEYS = auto()
    """The keys were not to be had now; it may be fine."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A PDU that is not admitted."""

    reason: Reason
    text: str


async def admit(
    pdus: Sequence[object],
    version: RoomVersion,
    room_id: str,
    source: Source,
    *,
    keys: Keys,
    runtime: Runtime,
    pause: Pause | None = None,
) -> list[Event | Refused]:
    """Check PDUs as they came, keeping their order. An event whose content hash is wrong comes back redacted.

    `room_id`: the room they must belong to. `source` decides how many references an event may have; else it
    is for the reader, and for the test that goes through all of them: no path has fewer than these checks.
    """
    assert set(_BY_ITSELF) <= set(source.checks)  # noqa: S101  (holds for the table above)
    results: list[Event | Refused] = []
    for start in range(0, len(pdus), _BATCH):
        part = pdus[start : start + _BATCH]
        results += await _admit_batch(part, version, room_id, source, keys, runtime, pause)
    return results


async def _admit_batch(
    pdus: Sequence[object],
    version: RoomVersion,
    room_id: str,
    source: Source,
    keys: Keys,
    runtime: Runtime,
    pause: Pause | None,
) -> list[Event | Refused]:
    if len(pdus) > _FEW:
        results = await runtime.threads.run(_read, pdus, version, room_id, source)
        for result in results:
            if isinstance(result, Event):
                result.text = None  # some live long
    else:
        results = []
        for start in range(0, len(pdus), _SLICE):
            started = trio.current_time()
            results += _read(pdus[start : start + _SLICE], version, room_id, source)
            if pause is not None:
                await pause(started)
    places = [index for index, result in enumerate(results) if isinstance(result, Event)]
    events = [result for result in results if isinstance(result, Event)]
    verdicts = await keys.verify_events(events) if events else []
    for index, verdict in zip(places, verdicts, strict=True):
        if verdict is not None:
            reason = Reason.KEYS if isinstance(verdict, KeyUnavailable) else Reason.SIGNATURE
            results[index] = Refused(reason, f"signature: {verdict}")
    return results


async def admit_one(
    pdu: object, version: RoomVersion, room_id: str, source: Source, *, keys: Keys, runtime: Runtime
) -> Event:
    """`admit` for a single event; raises a MatrixError where that would refuse."""
    (result,) = await admit([pdu], version, room_id, source, keys=keys, runtime=runtime)
    if isinstance(result, Event):
        return result
    match result.reason:
        case Reason.KEYS:
            raise MatrixError(403, "M_FORBIDDEN", f"The event is not rightly signed ({result.text}).")
        case Reason.FORMAT:
            raise MatrixError(400, "M_BAD_JSON", f"The event is not valid: {result.text}")
        case Reason.SIGNATURE | Reason.ROOM:
            raise MatrixError(400, "M_INVALID_PARAM", f"The event is not valid: {result.text}")
        case _:
            assert_never(result.reason)


def is_malformed(pdu: object, version: RoomVersion, event_id: str) -> bool:
    """Whether that event is none by its form, and this is how its sender made it, as far as hashes say.

    Its signatures don't count: nothing covers them, and anybody who passes it on could make them too many.
    """
    if not isinstance(pdu, dict):
        return False
    try:
        Event.from_wire(pdu | {"signatures": {}}, version)
    except EventError:
        return id_of_refused(pdu, version) == event_id and is_unchanged(pdu)
    return False


def _read(
    pdus: Sequence[object], version: RoomVersion, room_id: str, source: Source
) -> list[Event | Refused]:
    """Format, room and hash; the signature comes last because it may have to wait for keys, and it holds for
    an event and its redacted form alike."""
    results: list[Event | Refused] = []
    for pdu in pdus:
        try:
            event = Event.from_wire(pdu, version, of_history=source is Source.BACKFILL)
        except EventError as error:
            results.append(Refused(Reason.FORMAT, str(error)))
            continue
        if event.room_id != room_id:
            results.append(Refused(Reason.ROOM, "the event belongs to another room"))
        else:
            results.append(event if has_right_content_hash(event) else event.redacted())
    return results
