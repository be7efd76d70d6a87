# SPDX-License-Identifier: Apache-2.0
"""Content hashes, reference hashes and event ids (spec: server-server-api, "Signing Events")."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from minihs.matrix import canonical, unpadded
from minihs.matrix.canonical import JsonObject
from minihs.matrix.ids import is_event_id
from minihs.matrix.redaction import redact
from minihs.matrix.room_versions import RoomVersion

if TYPE_CHECKING:
    from minihs.matrix.event import Event

_NOT_IN_CONTENT_HASH = ("unsigned", "signatures", "hashes")


def content_hash(pdu: JsonObject) -> bytes:
    """The hash that `hashes.sha256` must hold: over everything but `unsigned`, `signatures` and `hashes`."""
    return _content_hash(pdu, canonical.encode)


def content_hash_of_checked(pdu: JsonObject) -> bytes:
    """The same for what has passed `canonical.check_strict`."""
    return _content_hash(pdu, canonical.encode_checked)


def with_content_hash(pdu: JsonObject) -> JsonObject:
    """A copy of `pdu` whose `hashes` holds its content hash."""
    return {**pdu, "hashes": {"sha256": unpadded.encode(content_hash(pdu))}}


def has_right_content_hash(event: Event) -> bool:
    """Whether the event is whole. If not, its redacted form is to be used in its place."""
    claimed = event.json["hashes"].get("sha256")
    if not isinstance(claimed, str):
        return False
    try:
        expected = unpadded.decode(claimed)
    except ValueError:
        return False
    return expected == _content_hash(event.json, _encoder(event.version))


def is_unchanged(pdu: Any) -> bool:
    """`has_right_content_hash` for what need not be a valid event."""
    try:
        return unpadded.decode(pdu["hashes"]["sha256"]) == content_hash(pdu)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def signed_bytes(pdu: JsonObject, version: RoomVersion) -> bytes:
    """What an event's signatures are made over, and its reference hash is taken of: the canonical JSON of the
    redacted event without `signatures` and `unsigned`."""
    kept = redact(pdu, version)
    kept.pop("signatures", None)
    return _encoder(version)(kept)


def reference_hash(pdu: JsonObject, version: RoomVersion) -> bytes:
    """The hash that names an event: in its id since room version 3, beside the id in references before."""
    return sha256(signed_bytes(pdu, version)).digest()


def is_same(one: Event, other: Event) -> bool:
    """Whether two events of one id are the same, each whole or redacted. In room versions 1 and 2 senders
    choose the id, and may choose it twice.
    """
    if one.room_id != other.room_id or other.version.event_format != 1:
        return one.room_id == other.room_id
    return reference_hash(one.json, one.version) == reference_hash(other.json, other.version)


def id_of_refused(pdu: Any, version: RoomVersion) -> str | None:
    """The id by which other servers know what is no valid event to us; None if it can't be one."""
    try:
        if version.event_format == 1:
            event_id = pdu["event_id"]
        else:
            kept = redact(pdu, version)
            kept.pop("signatures", None)
            event_id = _name_of(sha256(canonical.encode(kept)).digest(), version)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return event_id if is_event_id(event_id) else None


def event_id_of(pdu: JsonObject, version: RoomVersion, signed: bytes | None = None) -> str:
    """The id of an event: stated in it in room versions 1 and 2, made of its reference hash since. `signed`:
    its `signed_bytes`, if they are at hand."""
    if version.event_format == 1:
        event_id: str = pdu["event_id"]
        return event_id
    return _name_of(sha256(signed or signed_bytes(pdu, version)).digest(), version)


def _name_of(digest: bytes, version: RoomVersion) -> str:
    return "$" + (unpadded.encode(digest) if version.event_format == 2 else unpadded.encode_urlsafe(digest))


def _content_hash(pdu: JsonObject, encode: Callable[[Any], bytes]) -> bytes:
    hashed = dict(pdu)
    for key in _NOT_IN_CONTENT_HASH:
        hashed.pop(key, None)
    return sha256(encode(hashed)).digest()


def _encoder(version: RoomVersion) -> Callable[[Any], bytes]:
    """Events of strict versions have passed `check_strict` when they became an `Event`."""
    return canonical.encode_checked if version.strict_json else canonical.encode
