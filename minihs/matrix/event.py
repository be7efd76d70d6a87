# SPDX-License-Identifier: Apache-2.0
"""Event: one event of a room, in any room version (spec: server-server-api, "PDUs").

There are three ways to get one. `Event.from_wire` checks everything that can be checked about the event by
itself, `Event.from_store` trusts what an earlier check let in, `build_event` makes and signs a new one of
ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minihs.matrix import hashes, unpadded
from minihs.matrix.canonical import MAX_INT, BadJson, JsonObject, check_strict, encode_checked
from minihs.matrix.event_format import (
    EventError,
    check_fields,
    check_json,
    check_size,
    names_its_room,
    reference_ids,
    well_formed_signatures,
)
from minihs.matrix.ids import domain_of
from minihs.matrix.redaction import redact
from minihs.matrix.room_versions import RoomVersion
from minihs.matrix.signatures import SigningKey

__all__ = ["Event", "EventError", "build_event"]


class Event:
    """An event with its id. Never changed after it is made; two events with the same id are equal.

    What differs between room versions is settled here: `room_id`, `event_id`, `prev_events`, `auth_events`
    and `redacts` mean the same in all of them.
    """

    __slots__ = (
        "auth_events",
        "content",
        "depth",
        "event_id",
        "json",
        "origin_server_ts",
        "prev_events",
        "redacts",
        "room_id",
        "sender",
        "signed",
        "state_key",
        "text",
        "type",
        "version",
    )

    version: RoomVersion
    event_id: str
    room_id: str
    """In room version 12 that of a create event is made of its own id."""
    type: str
    sender: str
    state_key: str | None
    """None for what is not a state event."""
    content: JsonObject
    depth: int
    """At most 2^53-1. Old rooms hold larger ones; `json["depth"]` has them as they are."""
    origin_server_ts: int
    prev_events: tuple[str, ...]
    auth_events: tuple[str, ...]
    redacts: str | None
    """What an `m.room.redaction` redacts, wherever this version says so."""
    json: JsonObject
    """The event as it is signed and hashed and sent to other servers, without `unsigned`. So in room
    versions 1 and 2 it has an `event_id`, and in version 12 a create event has no `room_id`."""
    signed: bytes | None
    """Its `hashes.signed_bytes`, if its id was made of them just now and its signatures not looked at yet."""
    text: bytes | None
    """Its `json` as text, if it came just now; for who puts it on disk."""

    def __init__(self, pdu: JsonObject, version: RoomVersion, event_id: str) -> None:
        self.version = version
        self.event_id = event_id
        self.json = pdu
        self.signed = self.text = None
        self.type = pdu["type"]
        self.sender = pdu["sender"]
        self.state_key = pdu.get("state_key")
        self.content = pdu["content"]
        self.depth = min(pdu["depth"], MAX_INT)
        self.origin_server_ts = pdu["origin_server_ts"]
        self.prev_events = reference_ids(pdu["prev_events"], version)
        self.auth_events = reference_ids(pdu["auth_events"], version)
        if names_its_room(pdu, version):
            self.room_id = "!" + event_id[1:]
        else:
            self.room_id = pdu["room_id"]
        self.redacts = None
        if self.type == "m.room.redaction":
            target = (self.content if version.redacts_in_content else pdu).get("redacts")
            if isinstance(target, str):
                self.redacts = target

    @classmethod
    def from_wire(cls, pdu: object, version: RoomVersion, *, of_history: bool = False) -> Event:
        """The event that `pdu` is, if it is a valid one of that room version. EventError otherwise.

        Neither its hash nor its signatures are checked, nor whether it may be sent. `pdu` is left as it is;
        its `unsigned` is not taken over. `of_history`: it came by /backfill (see `check_fields`).
        """
        if not isinstance(pdu, dict):
            raise EventError("the event is not an object")
        taken = dict(pdu)
        taken.pop("unsigned", None)
        check_fields(taken, version, of_history=of_history)
        taken["signatures"] = well_formed_signatures(taken["signatures"])
        text = check_json(taken, version)
        signed = None if version.event_format == 1 else hashes.signed_bytes(taken, version)
        event = cls(taken, version, hashes.event_id_of(taken, version, signed))
        event.signed, event.text = signed, text
        return event

    @classmethod
    def from_store(cls, pdu: JsonObject, version: RoomVersion, event_id: str) -> Event:
        """An event that was checked before it was stored. Fast, and checks nothing."""
        return cls(pdu, version, event_id)

    @property
    def origin(self) -> str:
        """The server of the sender."""
        return domain_of(self.sender)

    @property
    def is_state(self) -> bool:
        return self.state_key is not None

    @property
    def key(self) -> tuple[str, str] | None:
        """What a state event sets: its type and state key. None for other events."""
        return None if self.state_key is None else (self.type, self.state_key)

    @property
    def membership(self) -> str | None:
        """The `membership` of an `m.room.member` event, if it is a string."""
        membership = self.content.get("membership") if self.type == "m.room.member" else None
        return membership if isinstance(membership, str) else None

    def redacted(self) -> Event:
        """The same event with only what a redaction leaves of it."""
        return Event(redact(self.json, self.version), self.version, self.event_id)

    def with_signatures(self, signatures: JsonObject) -> Event:
        """The same event with more signatures, `{server: {key id: signature}}`, merged into those it has."""
        merged = dict(self.json["signatures"])
        for server, of_server in signatures.items():
            merged[server] = {**merged.get(server, {}), **of_server}
        return Event({**self.json, "signatures": merged}, self.version, self.event_id)

    def __eq__(self, other: object) -> bool:
        return self.event_id == other.event_id if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        state = "" if self.state_key is None else f" {self.state_key!r}"
        return f"<Event {self.event_id} {self.type}{state} by {self.sender} in {self.room_id}>"


def build_event(
    *,
    version: RoomVersion,
    room_id: str | None,
    type: str,
    sender: str,
    content: JsonObject,
    state_key: str | None = None,
    depth: int,
    prev_events: Sequence[str],
    auth_events: Sequence[str],
    origin_server_ts: int,
    redacts: str | None = None,
    server_name: str,
    key: SigningKey,
    prev_hashes: Mapping[str, str] | None = None,
    random_id: str | None = None,
) -> Event:
    """A new event, hashed and signed. EventError if it would not be a valid one, for instance too large.

    `room_id` is None for a create event of room version 12. Room versions 1 and 2 need `random_id` for the
    event's own id, and in `prev_hashes` the reference hash (base64) of every event that is referred to,
    or "" where it is not known.
    What we make is strict JSON in every version, and its depth never more than 2^53-1.
    """
    pdu: JsonObject = {
        "type": type,
        "sender": sender,
        "content": content,
        "depth": min(depth, MAX_INT),
        "origin_server_ts": origin_server_ts,
        "prev_events": _references(prev_events, version, prev_hashes),
        "auth_events": _references(auth_events, version, prev_hashes),
        "signatures": {},
    }
    if room_id is not None:
        pdu["room_id"] = room_id
    if state_key is not None:
        pdu["state_key"] = state_key
    if redacts is not None:
        if version.redacts_in_content:
            pdu["content"] = {**content, "redacts": redacts}
        else:
            pdu["redacts"] = redacts
    if version.event_format == 1:
        if random_id is None:
            raise ValueError(f"an event of room version {version} needs a random_id")
        pdu["event_id"] = f"${random_id}:{server_name}"
    try:
        # The rest is ours, or looked at below.
        check_strict({"content": pdu["content"], "origin_server_ts": origin_server_ts})
        pdu["hashes"] = {"sha256": unpadded.encode(hashes.content_hash_of_checked(pdu))}
        named = hashes.signed_bytes(pdu, version)  # which is what the signature and the id are made of
        pdu["signatures"] = {server_name: {key.key_id: unpadded.encode(key.sign(named))}}
        size = len(encode_checked(pdu))
    except BadJson as error:
        raise EventError(f"the event is not canonical JSON: {error.args[0]}") from error
    check_fields(pdu, version)
    check_size(size)
    return Event(pdu, version, hashes.event_id_of(pdu, version, named))


def _references(
    event_ids: Sequence[str], version: RoomVersion, prev_hashes: Mapping[str, str] | None
) -> list[Any]:
    if version.event_format != 1:
        return list(event_ids)
    known = prev_hashes or {}
    missing = [event_id for event_id in event_ids if event_id not in known]
    if missing:
        raise ValueError(f"the reference hash of {missing[0]} is needed in room version {version}")
    return [[event_id, {"sha256": known[event_id]} if known[event_id] else {}] for event_id in event_ids]
