# SPDX-License-Identifier: Apache-2.0
"""The checks that need nothing but the event and keys: format, room, signatures, content hash.

Every path by which an event of another server reaches us goes through `admit`; what comes next depends on
the path (`Source`). Spec: server-server-api, "Checks performed on receipt of a PDU", 1–3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from minihs.matrix.errors import MatrixError
from minihs.matrix.event import Event, EventError
from minihs.matrix.federation_errors import KeyUnavailable
from minihs.matrix.hashes import has_right_content_hash
from minihs.matrix.room_versions import RoomVersion
from minihs.rooms.ports import Keys
from minihs.runtime import Runtime

_BATCH = 200
"""Events hashed in one go in a worker thread."""


class Source(Enum):
    """How an event came to us, and so which of the checks 4–7 it must pass: `CHECKS` has a row for each."""

    TRANSACTION = auto()
    MISSING_EVENTS = auto()
    MEMBERSHIP = auto()
    """Handed in by send_join, send_leave or send_knock."""
    BACKFILL = auto()
    STATE = auto()
    AUTH_CHAIN = auto()
    SEND_JOIN_ANSWER = auto()
    INVITE = auto()
    """Has a list of its own: rooms/invites.py."""

    @property
    def checks(self) -> tuple[str, ...]:
        return CHECKS[self]


CHECKS: dict[Source, tuple[str, ...]] = {
    # auth_events: it is allowed by its own auth events; before: by the state before it; current: by the
    # current state, else it is soft-failed.
    Source.TRANSACTION: ("auth_events", "before", "current"),
    Source.MISSING_EVENTS: ("auth_events", "before", "current"),
    Source.MEMBERSHIP: ("auth_events", "before", "current"),
    Source.BACKFILL: ("auth_events", "before"),
    Source.STATE: ("auth_events",),
    Source.AUTH_CHAIN: ("auth_events",),
    Source.SEND_JOIN_ANSWER: ("auth_events",),
    Source.INVITE: (),
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A PDU that is not admitted."""

    reason: str
    later: bool = False
    """The keys were not to be had now; it may be fine."""


async def admit(
    pdus: Sequence[object], version: RoomVersion, room_id: str | None, *, keys: Keys, runtime: Runtime
) -> list[Event | Refused]:
    """Check PDUs as they came, keeping their order. An event whose content hash is wrong comes back redacted.

    `room_id`: the room they must belong to.
    """
    results: list[Event | Refused] = [_from_wire(pdu, version, room_id) for pdu in pdus]
    places = [index for index, result in enumerate(results) if isinstance(result, Event)]
    events = [result for result in results if isinstance(result, Event)]
    verdicts = await keys.verify_events(events) if events else []
    good: list[int] = []
    for index, verdict in zip(places, verdicts):
        if verdict is None:
            good.append(index)
        else:
            results[index] = Refused(f"signature: {verdict}", later=isinstance(verdict, KeyUnavailable))
    if len(good) > _BATCH:
        for start in range(0, len(good), _BATCH):
            part = good[start : start + _BATCH]
            checked = await runtime.threads.run(_check_hashes, [results[index] for index in part])
            for index, event in zip(part, checked):
                results[index] = event
    else:
        for index, event in zip(good, _check_hashes([results[index] for index in good])):
            results[index] = event
    return results


async def admit_one(
    pdu: object, version: RoomVersion, room_id: str | None, *, keys: Keys, runtime: Runtime
) -> Event:
    """`admit` for a single event; raises M_BAD_JSON or M_FORBIDDEN where that would refuse."""
    (result,) = await admit([pdu], version, room_id, keys=keys, runtime=runtime)
    if isinstance(result, Refused):
        if result.reason.startswith("signature"):
            raise MatrixError(403, "M_FORBIDDEN", f"The event is not rightly signed ({result.reason}).")
        raise MatrixError(400, "M_BAD_JSON", f"The event is not valid: {result.reason}")
    return result


def _from_wire(pdu: object, version: RoomVersion, room_id: str | None) -> Event | Refused:
    try:
        event = Event.from_wire(pdu, version)
    except EventError as error:
        return Refused(str(error))
    if room_id is not None and event.room_id != room_id:
        return Refused("the event belongs to another room")
    return event


def _check_hashes(events: Sequence[Event | Refused]) -> list[Event]:
    return [
        event if has_right_content_hash(event) else event.redacted()
        for event in events
        if isinstance(event, Event)
    ]
