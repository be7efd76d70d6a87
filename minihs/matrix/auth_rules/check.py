# SPDX-License-Identifier: Apache-2.0
"""Whether a state allows an event: the authorisation rules of all room versions, in order.

Spec: rooms/v1 … v12, "Authorisation rules". The rule on the event's own auth events is `check_auth_events`;
all the others are here and in the modules that this one calls. The same rules are asked of the state made
of the auth events, the state before the event, the current state, and again and again in state resolution.
"""

from __future__ import annotations

from minihs.matrix.auth_rules.creation import allow_create
from minihs.matrix.auth_rules.errors import AuthError
from minihs.matrix.auth_rules.levels import PowerLevels, StateView
from minihs.matrix.auth_rules.membership import allow_member, membership_of
from minihs.matrix.auth_rules.numbering import Numbering, numbering_of
from minihs.matrix.auth_rules.power_levels import allow_power_levels
from minihs.matrix.event import Event
from minihs.matrix.ids import domain_of


def check_auth(event: Event, state: StateView) -> None:
    """Raise AuthError unless `state` allows the event.

    `state` must answer for the keys of `auth_types_for`, and for ("m.room.create", "") in every version: in
    version 12 that event is not among the auth events, so the caller puts it there.
    """
    allowing_rule(event, state)


def allowing_rule(event: Event, state: StateView) -> str:
    """As `check_auth`, and tells by which point of the rules the event is allowed."""
    # 1
    if event.type == "m.room.create":
        return allow_create(event)
    numbers = numbering_of(event.version)
    create = _create_of_room(event, state, numbers)
    # 3 (v12: 4)
    if create.content.get("m.federate") is False and domain_of(event.sender) != domain_of(create.sender):
        raise AuthError(str(numbers.federate), "the room is for users of its creator's server only")
    # 4, v1–v5
    if event.version.special_aliases_rule and event.type == "m.room.aliases":
        return _allow_aliases(event, str(numbers.aliases))
    # 4 (v1–v5, v12: 5)
    if event.type == "m.room.member":
        return allow_member(event, state, create)
    return _allow_from_member(event, state, create, numbers)


def _create_of_room(event: Event, state: StateView, numbers: Numbering) -> Event:
    """The create event; without it, or with another room's, nothing is allowed (v12: 2, before: 2.4 and
    2.5)."""
    create = state.get(("m.room.create", ""))
    if create is None:
        raise AuthError(numbers.of_room(event.version)[0], "the state has no create event")
    if create.room_id != event.room_id:
        raise AuthError(numbers.of_room(event.version)[1], "the state is another room's")
    return create


def _allow_aliases(event: Event, rule: str) -> str:
    # 4.1
    if event.state_key is None:
        raise AuthError(f"{rule}.1", "aliases need a state key")
    # 4.2
    if domain_of(event.sender) != event.state_key:
        raise AuthError(f"{rule}.2", "the aliases are another server's")
    # 4.3
    return f"{rule}.3"


def _allow_from_member(event: Event, state: StateView, create: Event, numbers: Numbering) -> str:
    """All that only a member of the room may do."""
    # 5 (v1–v5, v12: 6)
    if membership_of(state, event.sender) != "join":
        raise AuthError(str(numbers.not_joined), "the sender is not in the room")
    levels = PowerLevels.from_state(state)
    power = levels.user(event.sender)
    # 6 (v1–v5, v12: 7)
    if event.type == "m.room.third_party_invite":
        rule = f"{numbers.third_party_invite}.1"
        if power >= levels.invite:
            return rule
        raise AuthError(rule, "the sender's power does not suffice to invite")
    # 7 (v1–v5, v12: 8)
    if levels.event_level(event.type, event.is_state) > power:
        raise AuthError(
            str(numbers.required_level), "the sender's power does not suffice for this type of event"
        )
    # 8 (v1–v5, v12: 9)
    if event.state_key is not None and event.state_key.startswith("@") and event.state_key != event.sender:
        raise AuthError(str(numbers.state_key), "the state is another user's own")
    # 9 (v1–v5, v12: 10)
    if event.type == "m.room.power_levels":
        return allow_power_levels(event, state, create)
    # 11, v1 and v2
    if event.version.redactions_in_auth_rules and event.type == "m.room.redaction":
        return _allow_redaction(event, power, levels, str(numbers.redaction))
    # 10 (v1–v2: 12; v3–v5, v12: 11)
    return str(numbers.otherwise)


def _allow_redaction(event: Event, power: float, levels: PowerLevels, rule: str) -> str:
    # 11.1
    if power >= levels.redact:
        return f"{rule}.1"
    # 11.2. The ids are not hashes here; each ends in the server that made the event.
    target = event.redacts
    if isinstance(target, str) and ":" in target and domain_of(target) == domain_of(event.event_id):
        return f"{rule}.2"
    # 11.3
    raise AuthError(f"{rule}.3", "the sender's power does not suffice to redact another server's event")


def redaction_allowed(redaction: Event, target: Event, state: StateView) -> bool:
    """Whether an accepted redaction takes effect on `target` (rooms/v3, "Handling redactions").

    In versions 1 and 2 the rules decided that when they let the redaction in. `state` is the state at the
    redaction.
    """
    if redaction.room_id != target.room_id:
        return False
    if redaction.version.redactions_in_auth_rules:
        return True
    levels = PowerLevels.from_state(state)
    if levels.user(redaction.sender) >= levels.redact:
        return True
    return domain_of(redaction.sender) == domain_of(target.sender)
