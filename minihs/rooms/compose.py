# SPDX-License-Identifier: Apache-2.0
"""Events of our own users: built on the newest of the room, checked as any other event is, signed, stored,
sent on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from minihs.matrix import unpadded
from minihs.matrix.auth_rules import AuthError, PowerLevels, auth_types_for, check_auth
from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, forbidden, not_found
from minihs.matrix.event import Event, EventError, build_event
from minihs.matrix.hashes import reference_hash
from minihs.matrix.room_versions import RoomVersion
from minihs.rooms.authorise import alike
from minihs.rooms.batch import Batch
from minihs.rooms.entry import ClientTxn, Entry
from minihs.rooms.head import Head
from minihs.rooms.parts import Parts
from minihs.rooms.placement import link_redaction
from minihs.rooms.state import StateRef
from minihs.store import rooms
from minihs.store.events import Outcome

MAX_DEPTH = 2**53 - 1

_NOT_TO_BE_REDACTED = {
    "m.room.create": "it would have no effect",
    "m.room.server_acl": "an empty list of who is allowed would shut everybody out",
}


def build(
    parts: Parts,
    version: RoomVersion,
    room_id: str | None,
    *,
    sender: str,
    type: str,
    content: JsonObject,
    state_key: str | None,
    depth: int,
    prev_events: Iterable[str],
    auth_events: Iterable[str],
    redacts: str | None = None,
    ts: int | None = None,
) -> Event:
    """A signed event of ours. Raises M_TOO_LARGE or M_BAD_JSON for what can't be an event."""
    prevs, auths = list(prev_events), list(auth_events)
    try:
        return build_event(
            version=version,
            room_id=room_id,
            type=type,
            sender=sender,
            content=content,
            state_key=state_key,
            depth=min(depth, MAX_DEPTH),
            prev_events=prevs,
            auth_events=auths,
            origin_server_ts=parts.time_to_sign() if ts is None else ts,
            redacts=redacts,
            server_name=parts.our_name,
            key=parts.signing_key,
            prev_hashes=_hashes(parts, version, (*prevs, *auths)),
            random_id=parts.runtime.random.token_urlsafe(18) if version.event_format == 1 else None,
        )
    except EventError as error:
        text = str(error)
        if "large" in text or "long" in text or "bytes" in text:
            raise MatrixError(413, "M_TOO_LARGE", f"The event is too large: {text}") from error
        raise MatrixError(400, "M_BAD_JSON", f"That is no valid event: {text}") from error


def _hashes(parts: Parts, version: RoomVersion, event_ids: Iterable[str]) -> dict[str, str] | None:
    """References of room versions 1 and 2 carry the hash beside the id."""
    if version.event_format != 1:
        return None
    hashes: dict[str, str] = {}
    for event_id in event_ids:
        event = parts.graph.event(event_id)
        if event is not None:
            hashes[event_id] = unpadded.encode(reference_hash(event.json, version))
    return hashes


def compose(
    parts: Parts,
    batch: Batch,
    *,
    sender: str,
    type: str,
    content: JsonObject,
    state_key: str | None = None,
    redacts: str | None = None,
    txn: ClientTxn | None = None,
    extra_hosts: Collection[str] = (),
    hosts: Collection[str] | None = None,
    ts: int | None = None,
) -> Entry:
    """Build an event at the head of the room and add it to the batch. Raises M_FORBIDDEN and as `build`.

    `hosts`: who gets it; by default the servers of the room, and `extra_hosts`.
    """
    head = batch.head
    tips = head.newest()
    before = head.state_after(parts.graph, tips)
    types = auth_types_for(head.version, type=type, sender=sender, state_key=state_key, content=content)
    auth_ids = [event_id for key in types if (event_id := parts.graph.lookup(before, key)) is not None]
    event = build(
        parts,
        head.version,
        head.room_id,
        sender=sender,
        type=type,
        content=content,
        state_key=state_key,
        depth=max((tip.depth for tip in tips), default=0) + 1,
        prev_events=[tip.event_id for tip in tips],
        auth_events=auth_ids,
        redacts=redacts,
        ts=ts,
    )
    allow(parts, head, event, before)
    allow_redaction(parts, head, event, before)
    entry = Entry(event, Outcome.ACCEPTED, parts.now(), before=before, topo=head.max_topo() + 1, txn=txn)
    entry.hosts = {*_hosts(parts, batch), *extra_hosts} - {parts.our_name} if hosts is None else hosts
    entry.after = before.with_event(event)
    link_redaction(batch, entry)
    batch.is_new(event.event_id)
    batch.accept(entry)
    return entry


def _hosts(parts: Parts, batch: Batch) -> Collection[str]:
    """The servers in the room, by its state on disk."""
    head = batch.head
    if head.hosts is not None and head.hosts[0].same_as(head.current):
        return head.hosts[1]
    hosts = rooms.hosts(parts.db.read, head.room_nid)
    if not batch and head.partial is None:  # else it is not by the current state that we know them
        head.hosts = head.current, hosts
    return hosts


def allow(parts: Parts, head: Head, event: Event, before: StateRef) -> None:
    """Raise M_FORBIDDEN if the event is against the auth rules, by the state before it or the current one."""
    like = alike(event) if head.partial is None else None
    try:
        if like is None or like not in before.allowed:
            check_auth(event, head.state(parts.graph, before))
            if like is not None:  # it cites what the state has, so by its auth events it is allowed as well
                before.allow(like)
        if not before.same_as(head.current):
            check_auth(event, head.state(parts.graph))
    except AuthError as error:
        raise forbidden(f"You may not do that: {error}") from error


def allow_redaction(parts: Parts, head: Head, event: Event, before: StateRef) -> None:
    """To other servers, whatever one of our users said may be redacted by any of our users. That only those
    with the power redact what others said is for us to see to: nobody else can.
    """
    if event.type != "m.room.redaction" or event.redacts is None:
        return
    target = parts.graph.event(event.redacts)
    if target is not None and target.room_id == event.room_id and target.type in _NOT_TO_BE_REDACTED:
        raise forbidden(f"{target.type} can't be redacted: {_NOT_TO_BE_REDACTED[target.type]}.")
    levels = PowerLevels.from_state(head.state(parts.graph, before))
    if levels.user(event.sender) >= levels.redact:
        return
    if target is None or target.room_id != event.room_id:
        raise not_found("There is no such event in this room.")
    if target.sender != event.sender:
        raise forbidden("You may redact only what you sent yourself.")
