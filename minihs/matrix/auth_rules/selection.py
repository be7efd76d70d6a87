# SPDX-License-Identifier: Apache-2.0
"""Which state an event is judged by, and whether the auth events it names are those.

Spec: server-server-api, "Auth events selection", and the rule "Considering the event's auth_events" of each
room version (2; in version 12 rules 2 and 3).
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from minihs.matrix.auth_rules.errors import AuthError
from minihs.matrix.auth_rules.numbering import numbering_of
from minihs.matrix.event import Event
from minihs.matrix.room_versions import RoomVersion

type Key = tuple[str, str]
"""The `(type, state_key)` of a state event."""

AUTH_TYPES = frozenset(
    (
        "m.room.create",
        "m.room.power_levels",
        "m.room.member",
        "m.room.join_rules",
        "m.room.third_party_invite",
    )
)
"""What `auth_types_for` names, in any version: an auth chain has no event of another type that was not
rejected."""


def auth_types_for(
    version: RoomVersion, *, type: str, sender: str, state_key: str | None, content: dict[str, object]
) -> list[Key]:
    """The keys of the state from which such an event takes its auth events.

    Also the keys by which the rules judge it, with one exception: in version 12 the create event is needed
    too, although it is not an auth event (the room id stands for it).
    """
    if type == "m.room.create":
        return []
    keys: list[Key] = []
    if version.create_event_in_auth_events:
        keys.append(("m.room.create", ""))
    keys.append(("m.room.power_levels", ""))
    keys.append(("m.room.member", sender))
    if type == "m.room.member":
        if state_key is not None and state_key != sender:
            keys.append(("m.room.member", state_key))
        keys += _for_membership(version, content)
    return list(dict.fromkeys(keys))


def _for_membership(version: RoomVersion, content: dict[str, object]) -> list[Key]:
    membership = content.get("membership")
    keys: list[Key] = []
    if membership in ("join", "invite", "knock"):
        keys.append(("m.room.join_rules", ""))
    if membership == "invite":
        invite = content.get("third_party_invite")
        signed = invite.get("signed") if isinstance(invite, dict) else None
        token = signed.get("token") if isinstance(signed, dict) else None
        if isinstance(token, str):
            keys.append(("m.room.third_party_invite", token))
    if membership == "join" and version.restricted_join:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):
            keys.append(("m.room.member", authoriser))
    return keys


def check_auth_events(
    event: Event, auth_events: Sequence[Event], rejected: Container[str], create: Event | None
) -> None:
    """Raise AuthError unless the auth events are the kind of events that may authorise `event`.

    `auth_events` are all the events named by `event.auth_events`; fetching them comes first, and an event
    whose auth events can't be had is deferred, not rejected. `rejected` has the ids of rejected events.
    `create` matters in version 12 only: the event whose hash the room id is, or None where no such event is
    known. An m.room.create has no such demands on it (rule 1 decides alone).
    """
    if event.type == "m.room.create":
        return
    if {auth.event_id for auth in auth_events} != set(event.auth_events):
        raise ValueError("auth_events must be exactly the events that the event names")
    numbers = numbering_of(event.version)
    if event.version.room_id_is_create_hash:
        _check_room_id(event, create, rejected, str(numbers.room_id))
    rule = numbers.auth_events

    # 2.1 (v12: 3.1)
    if len(set(event.auth_events)) != len(event.auth_events):
        raise AuthError(f"{rule}.1", "an auth event is named twice")
    keys = {auth.key for auth in auth_events}
    if len(keys) != len(auth_events):
        raise AuthError(f"{rule}.1", "two auth events have the same type and state key")
    # 2.2 (v12: 3.2). An auth event that is no state event has None for a key, which is never wanted.
    wanted = auth_types_for(
        event.version, type=event.type, sender=event.sender, state_key=event.state_key, content=event.content
    )
    if not keys.issubset(wanted):
        raise AuthError(f"{rule}.2", "an auth event is of a kind that does not authorise this event")
    # 2.3 (v12: 3.3)
    if any(auth.event_id in rejected for auth in auth_events):
        raise AuthError(f"{rule}.3", "an auth event was rejected")
    # 2.4
    if event.version.create_event_in_auth_events and ("m.room.create", "") not in keys:
        raise AuthError(
            f"{rule}.{numbers.auth_events_create}", "there is no create event among the auth events"
        )
    # 2.5 (v12: 3.4)
    if any(auth.room_id != event.room_id for auth in auth_events):
        raise AuthError(f"{rule}.{numbers.auth_events_room}", "an auth event is of another room")


def _check_room_id(event: Event, create: Event | None, rejected: Container[str], rule: str) -> None:
    """Rule 2 of version 12."""
    if (
        create is None
        or create.key != ("m.room.create", "")
        or create.event_id[1:] != event.room_id[1:]
        or create.event_id in rejected
    ):
        raise AuthError(rule, "the room id does not name an accepted create event")
