# SPDX-License-Identifier: Apache-2.0
"""The rule for m.room.member: 5 in v1–v5 and v12, 4 in v6–v11.

Where a comment gives one number it is that of versions 8–11; `numbering.py` has those of the others.
"""

from __future__ import annotations

from minihs.matrix.auth_rules.errors import AuthError
from minihs.matrix.auth_rules.levels import PowerLevels, StateView, creators_of
from minihs.matrix.auth_rules.numbering import Numbering, numbering_of
from minihs.matrix.auth_rules.third_party import allow_third_party_invite
from minihs.matrix.event import Event
from minihs.matrix.ids import domain_of, is_user_id


def membership_of(state: StateView, user_id: str) -> str:
    """What the user is in this state; who was never there counts as having left."""
    event = state.get(("m.room.member", user_id))
    return (event.membership or "leave") if event is not None else "leave"


def allow_member(event: Event, state: StateView, create: Event) -> str:
    """The number of the point that allows the event; AuthError if none does."""
    numbers = numbering_of(event.version)
    rule = str(numbers.member)
    target = event.state_key
    # 4.1
    if target is None or "membership" not in event.content:
        raise AuthError(f"{rule}.1", "a membership needs a state key and a membership")
    # 4.2
    if event.version.restricted_join and "join_authorised_via_users_server" in event.content:
        _check_authorised(event, f"{rule}.{numbers.member_authorised}.1")
    match event.membership:
        case "join":
            return _allow_join(event, target, state, create, numbers, f"{rule}.{numbers.member_join}")
        case "invite":
            return _allow_invite(event, target, state, f"{rule}.{numbers.member_invite}")
        case "leave":
            return _allow_leave(event, target, state, f"{rule}.{numbers.member_leave}")
        case "ban":
            return _allow_ban(event, target, state, f"{rule}.{numbers.member_ban}")
        case "knock" if event.version.knock:
            return _allow_knock(event, target, state, f"{rule}.{numbers.member_knock}")
    # 4.8
    raise AuthError(f"{rule}.{numbers.member_unknown}", "the membership is unknown")


def _check_authorised(event: Event, rule: str) -> None:
    """Point 2.1: the signature of the server that let the user in.

    Whether the signature is right was seen with the sender's own, when the event came (it takes keys, which
    a rule doesn't have); here it has to be there. A server that authorises a join signs it first and then
    asks.
    """
    authoriser = event.content["join_authorised_via_users_server"]
    if is_user_id(authoriser):
        signatures = event.json.get("signatures")
        if isinstance(signatures, dict) and signatures.get(domain_of(authoriser)):
            return
    raise AuthError(rule, "the server of the authorising user did not sign")


def _allow_join(
    event: Event, target: str, state: StateView, create: Event, numbers: Numbering, rule: str
) -> str:
    # 4.3.1
    if event.prev_events == (create.event_id,) and _is_creator(target, create):
        return f"{rule}.1"
    # 4.3.2
    if event.sender != target:
        raise AuthError(f"{rule}.2", "nobody joins for somebody else")
    # 4.3.3
    membership = membership_of(state, target)
    if membership == "ban":
        raise AuthError(f"{rule}.3", "the user is banned")
    join_rule = _join_rule(state)
    # 4.3.4
    if join_rule == "invite" or (join_rule == "knock" and event.version.knock):
        if membership in ("invite", "join"):
            return f"{rule}.4"
        raise AuthError(f"{rule}.{numbers.join_otherwise}", "the user is not invited")
    # 4.3.5
    if event.version.restricted_join and (
        join_rule == "restricted" or (join_rule == "knock_restricted" and event.version.knock_restricted)
    ):
        point = f"{rule}.{numbers.join_restricted}"
        if membership in ("invite", "join"):
            return f"{point}.1"
        authoriser = event.content.get("join_authorised_via_users_server")
        if (
            not isinstance(authoriser, str)
            or membership_of(state, authoriser) != "join"
            or not _may_invite(state, authoriser)
        ):
            raise AuthError(f"{point}.2", "nobody who may invite authorised the join")
        return f"{point}.3"
    # 4.3.6
    if join_rule == "public":
        return f"{rule}.{numbers.join_public}"
    # 4.3.7
    raise AuthError(f"{rule}.{numbers.join_otherwise}", "the join rule lets nobody in")


def _is_creator(user_id: str, create: Event) -> bool:
    """Who may be the first to join. In version 12 that is still the sender alone, not an additional
    creator."""
    if create.version.creator_in_content:
        return user_id in creators_of(create)
    return user_id == create.sender


def _join_rule(state: StateView) -> object:
    """The join rule; a room that has none is for the invited."""
    event = state.get(("m.room.join_rules", ""))
    return event.content.get("join_rule", "invite") if event is not None else "invite"


def _may_invite(state: StateView, user_id: str) -> bool:
    levels = PowerLevels.from_state(state)
    return levels.user(user_id) >= levels.invite


def _allow_invite(event: Event, target: str, state: StateView, rule: str) -> str:
    target_membership = membership_of(state, target)
    # 4.4.1
    if "third_party_invite" in event.content:
        return allow_third_party_invite(event, state, target_membership, f"{rule}.1")
    # 4.4.2
    if membership_of(state, event.sender) != "join":
        raise AuthError(f"{rule}.2", "the sender is not in the room")
    # 4.4.3
    if target_membership in ("join", "ban"):
        raise AuthError(f"{rule}.3", "the user is in the room already, or banned")
    # 4.4.4
    if _may_invite(state, event.sender):
        return f"{rule}.4"
    # 4.4.5
    raise AuthError(f"{rule}.5", "the sender's power does not suffice to invite")


def _allow_leave(event: Event, target: str, state: StateView, rule: str) -> str:
    sender_membership = membership_of(state, event.sender)
    # 4.5.1
    if event.sender == target:
        leavable = ("invite", "join") if not event.version.knock else ("invite", "join", "knock")
        if sender_membership in leavable:
            return f"{rule}.1"
        raise AuthError(f"{rule}.1", "the user has nothing to leave")
    # 4.5.2
    if sender_membership != "join":
        raise AuthError(f"{rule}.2", "the sender is not in the room")
    levels = PowerLevels.from_state(state)
    power = levels.user(event.sender)
    # 4.5.3
    if membership_of(state, target) == "ban" and power < levels.ban:
        raise AuthError(f"{rule}.3", "the sender's power does not suffice to lift a ban")
    # 4.5.4
    if power >= levels.kick and levels.user(target) < power:
        return f"{rule}.4"
    # 4.5.5
    raise AuthError(f"{rule}.5", "the sender's power does not suffice to remove the user")


def _allow_ban(event: Event, target: str, state: StateView, rule: str) -> str:
    # 4.6.1
    if membership_of(state, event.sender) != "join":
        raise AuthError(f"{rule}.1", "the sender is not in the room")
    # 4.6.2
    levels = PowerLevels.from_state(state)
    power = levels.user(event.sender)
    if power >= levels.ban and levels.user(target) < power:
        return f"{rule}.2"
    # 4.6.3
    raise AuthError(f"{rule}.3", "the sender's power does not suffice to ban the user")


def _allow_knock(event: Event, target: str, state: StateView, rule: str) -> str:
    # 4.7.1 (v7: 4.6.1)
    join_rule = _join_rule(state)
    if join_rule != "knock" and not (join_rule == "knock_restricted" and event.version.knock_restricted):
        raise AuthError(f"{rule}.1", "the room does not take knocks")
    # 4.7.2
    if event.sender != target:
        raise AuthError(f"{rule}.2", "nobody knocks for somebody else")
    # 4.7.3
    if membership_of(state, target) not in ("ban", "invite", "join"):
        return f"{rule}.3"
    # 4.7.4
    raise AuthError(f"{rule}.4", "the user is banned, invited or in the room")
