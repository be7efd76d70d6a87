# SPDX-License-Identifier: Apache-2.0
"""What another server shows of a room to whom it invites, or who knocks: whole events of that room (spec:
server-server-api, PUT /invite and /send_knock; MSC4311).

From room version 12 on each of them is checked, since the create event is what the room's id stands for. That
events are stripped, as all were before, or that the create event is missing, is only logged: the servers that
do so are too many. In older rooms everything is only logged, and no keys are asked for.
What is nested too deeply is left out in all of them: the server that shows it need not have that limit.
"""

from __future__ import annotations

import structlog

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.event import Event, EventError
from minihs.matrix.room_versions import RoomVersion
from minihs.rooms.admission import Reason, Source, admit
from minihs.rooms.parts import Parts
from minihs.rooms.stripped import MAX_STRIPPED_EVENTS

log = structlog.get_logger()


async def check_shown(
    parts: Parts, version: RoomVersion, room_id: str, shown: object
) -> tuple[list[JsonObject], list[str]]:
    """(what may be shown to our user, what is wrong with the rest). An event whose hash is wrong is shown
    redacted; one whose signature can't be checked now is left out without being wrong."""
    entries = shown[:MAX_STRIPPED_EVENTS] if isinstance(shown, list) else []
    items = [entry for entry in entries if isinstance(entry, dict) and not canonical.is_too_deep(entry)]
    problems = [problem for entry in entries if (problem := _problem(entry, version, room_id)) is not None]
    if not any((item.get("type"), item.get("state_key")) == ("m.room.create", "") for item in items):
        problems.append("there is no create event")
    if problems:
        log.warning(
            "what a server shows of a room is not as it should be", room=room_id, problems=problems[:3]
        )
    if not version.room_id_is_create_hash:
        return items, []
    whole = [item for item in items if _is_whole(item)]
    verdicts = await admit(
        whole, version, room_id, Source.SHOWN_STATE, keys=parts.keys, runtime=parts.runtime
    )
    of_whole = iter(verdicts)
    good: list[JsonObject] = []
    wrong: list[str] = []
    for item in items:
        verdict = next(of_whole) if _is_whole(item) else item
        if isinstance(verdict, Event):
            good.append(verdict.json)
        elif isinstance(verdict, dict):
            good.append(verdict)
        elif verdict.reason is not Reason.KEYS:
            wrong.append(verdict.text)
    return good, wrong


def _is_whole(item: JsonObject) -> bool:
    """As opposed to stripped."""
    return "hashes" in item or "signatures" in item


def _problem(item: object, version: RoomVersion, room_id: str) -> str | None:
    try:
        event = Event.from_wire(item, version)
    except EventError as error:
        return str(error)
    return None if event.room_id == room_id else "an event is of another room"
