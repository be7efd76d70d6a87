# SPDX-License-Identifier: Apache-2.0
"""Whether a PDU is a valid event of its room version: check 1 of "Checks performed on receipt of a PDU".

Spec: rooms/v1 to rooms/v12, "Event format"; client-server-api, "Size limits".
"""

from __future__ import annotations

from typing import Any

from minihs.matrix import canonical, ids
from minihs.matrix.canonical import BadJson, JsonObject
from minihs.matrix.room_versions import RoomVersion

MAX_EVENT_BYTES = 65_536
"""Of the whole event in canonical JSON, signatures included."""

MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10
MAX_OLD_REFERENCES = 100
"""Of each kind, of an event of history: from before there were limits, rooms hold events with many."""
_MAX_INT64 = 2**63 - 1


class EventError(ValueError):
    """A PDU that is not a valid event of its room version: it is dropped. `args[0]` is safe text."""


def check_json(pdu: JsonObject, version: RoomVersion) -> bytes | None:
    """The rules for the event as JSON: numbers, nesting, size. EventError. Returns it as JSON, if that was
    made on the way."""
    text = None
    try:
        if version.strict_json:
            canonical.check_strict(pdu)
            text = canonical.dumps(pdu)  # sorted or not, it has the same size
            size = len(text)
        else:
            canonical.check_depth(pdu)
            size = len(canonical.encode(pdu))
    except BadJson as error:
        raise EventError(f"the event is not canonical JSON: {error.args[0]}") from error
    check_size(size)
    return text


def check_size(size: int) -> None:
    """EventError if that is too large. In bytes of canonical JSON."""
    if size > MAX_EVENT_BYTES:
        raise EventError(f"the event has {size} bytes, more than {MAX_EVENT_BYTES}")


def check_fields(pdu: JsonObject, version: RoomVersion, *, of_history: bool = False) -> None:
    """The rules for each field: presence, type, grammar, size. EventError.

    `of_history`: it came by /backfill, whose events "MUST NOT be validated" on the number of references.
    """
    type_ = pdu.get("type")
    if not isinstance(type_, str) or not ids.fits(type_):
        raise EventError("type is not a string of at most 255 bytes")
    if not ids.is_user_id(pdu.get("sender")):
        raise EventError("sender is not a user id")
    state_key = pdu.get("state_key", "")
    if not isinstance(state_key, str) or not ids.fits(state_key):
        raise EventError("state_key is not a string of at most 255 bytes")
    content = pdu.get("content")
    if not isinstance(content, dict):
        raise EventError("content is not an object")
    timestamp = pdu.get("origin_server_ts")
    if type(timestamp) is not int or abs(timestamp) > _MAX_INT64:
        raise EventError("origin_server_ts is not a 64-bit integer")
    depth = pdu.get("depth")
    if type(depth) is not int or not 0 <= depth <= _MAX_INT64:
        raise EventError("depth is not an integer from 0 to 2^63-1")
    hashes = pdu.get("hashes")
    if not isinstance(hashes, dict) or not isinstance(hashes.get("sha256"), str):
        raise EventError("hashes has no sha256")
    if not isinstance(pdu.get("signatures"), dict):
        raise EventError("signatures is not an object")
    _check_room_id(pdu, version)
    if version.event_format != 1:
        if "event_id" in pdu:
            # It would be hashed into the real id, so it can't be overlooked like other unknown fields.
            raise EventError("an event of this room version has no event_id in it")
    elif not ids.is_domain_event_id(pdu.get("event_id")):
        raise EventError("event_id is not an event id of this room version")
    _check_references(pdu, "prev_events", MAX_OLD_REFERENCES if of_history else MAX_PREV_EVENTS, version)
    _check_references(pdu, "auth_events", MAX_OLD_REFERENCES if of_history else MAX_AUTH_EVENTS, version)
    if version.restricted_join and type_ == "m.room.member":
        authoriser = content.get("join_authorised_via_users_server")
        if authoriser is not None and not ids.is_user_id(authoriser):
            raise EventError("join_authorised_via_users_server is not a user id")


def well_formed_signatures(signatures: JsonObject) -> JsonObject:
    """The entries of `signatures` that have the right shape.

    Anybody who passes an event on can add to its signatures, and nothing covers them. So rubbish in there
    costs its entry, not the event.
    """
    for of_server in signatures.values():
        if type(of_server) is not dict or any(type(text) is not str for text in of_server.values()):
            break
    else:
        return signatures
    return {
        server: {key_id: text for key_id, text in of_server.items() if isinstance(text, str)}
        for server, of_server in signatures.items()
        if isinstance(of_server, dict)
    }


def reference_ids(references: list[Any], version: RoomVersion) -> tuple[str, ...]:
    """The event ids in `prev_events` or `auth_events`, whatever form the version writes them in."""
    if version.event_format == 1:
        return tuple(event_id for event_id, _ in references)
    return tuple(references)


def names_its_room(pdu: JsonObject, version: RoomVersion) -> bool:
    """Whether this is a create event whose hash is the room id (rooms/v12, "Event format")."""
    return version.room_id_is_create_hash and pdu["type"] == "m.room.create" and pdu.get("state_key") == ""


def _check_room_id(pdu: JsonObject, version: RoomVersion) -> None:
    if not version.room_id_is_create_hash:
        if not ids.is_domain_room_id(pdu.get("room_id")):
            raise EventError("room_id is not a room id of this room version")
    elif names_its_room(pdu, version):
        if "room_id" in pdu:
            raise EventError("a create event of this room version has no room_id")
    elif not ids.is_hash_room_id(pdu.get("room_id")):
        raise EventError("room_id is not a room id of this room version")


def _check_references(pdu: JsonObject, field: str, limit: int, version: RoomVersion) -> None:
    references = pdu.get(field)
    if not isinstance(references, list):
        raise EventError(f"{field} is not a list")
    if len(references) > limit:
        raise EventError(f"{field} has more than {limit} entries")
    if version.event_format == 1:
        right = all(map(_is_reference_pair, references))
    else:
        right = all(map(ids.is_event_id, references))
    if not right:
        raise EventError(f"{field} has an entry that does not refer to an event")


def _is_reference_pair(entry: object) -> bool:
    """`[event_id, {"sha256": hash}]`. The hashes are not used for anything, so they may be missing."""
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and ids.is_event_id(entry[0])
        and isinstance(entry[1], dict)
    )
