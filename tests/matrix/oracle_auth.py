# SPDX-License-Identifier: Apache-2.0
"""The authorisation rules once more, written down plainly from the texts: slow, simple, and sharing no code
with minihs.matrix.auth_rules. Tests and simulations compare the two."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import nacl.exceptions
import nacl.signing

from minihs.matrix import canonical, unpadded
from minihs.matrix.event import Event
from minihs.matrix.ids import is_user_id
from minihs.matrix.room_versions import ROOM_VERSIONS

type Key = tuple[str, str]
type State = Mapping[Key, Event]

SCALARS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")


def number(event: Event) -> int:
    """The room version, as a number."""
    return int(event.version.version)


def domain(user: str) -> str:
    return user.split(":", 1)[1]


def allowed(event: Event, state: State) -> bool:
    v = number(event)
    if event.type == "m.room.create":
        return create_allowed(event, v)
    create = state.get(("m.room.create", ""))
    if create is None or create.room_id != event.room_id:
        return False
    if create.content.get("m.federate") is False and domain(event.sender) != domain(create.sender):
        return False
    if event.type == "m.room.aliases" and v <= 5:
        return event.state_key == domain(event.sender)
    if event.type == "m.room.member":
        return member_allowed(event, state, create, v)
    if membership(state, event.sender) != "join":
        return False
    power = level_of(event.sender, state)
    if event.type == "m.room.third_party_invite":
        return power >= scalar("invite", state)
    if power < required(event, state):
        return False
    if event.state_key is not None and event.state_key[:1] == "@" and event.state_key != event.sender:
        return False
    if event.type == "m.room.power_levels":
        return levels_allowed(event, state, create, power, v)
    if event.type == "m.room.redaction" and v <= 2:
        if power >= scalar("redact", state):
            return True
        target = event.json.get("redacts")
        return isinstance(target, str) and ":" in target and domain(target) == domain(event.event_id)
    return True


def create_allowed(event: Event, v: int) -> bool:
    content = event.content
    if event.prev_events:
        return False
    if v >= 12:
        if "room_id" in event.json:
            return False
    elif ":" not in event.room_id or domain(event.room_id) != domain(event.sender):
        return False
    if "room_version" in content:
        version = content["room_version"]
        if not isinstance(version, str) or version not in ROOM_VERSIONS:
            return False
    if v <= 10 and "creator" not in content:
        return False
    if v >= 12 and "additional_creators" in content:
        more = content["additional_creators"]
        return isinstance(more, list) and all(is_user_id(user) for user in more)
    return True


def wanted_keys(event: Event) -> set[Key]:
    """The auth events selection of the server-server API."""
    if event.type == "m.room.create":
        return set()
    keys = {("m.room.power_levels", ""), ("m.room.member", event.sender)}
    if number(event) < 12:
        keys.add(("m.room.create", ""))
    if event.type == "m.room.member" and event.state_key is not None:
        content = event.content
        keys.add(("m.room.member", event.state_key))
        now = content.get("membership")
        if now in ("join", "invite", "knock"):
            keys.add(("m.room.join_rules", ""))
        if now == "invite":
            invite = content.get("third_party_invite")
            if isinstance(invite, dict) and isinstance(invite.get("signed"), dict):
                token = invite["signed"].get("token")
                if isinstance(token, str):
                    keys.add(("m.room.third_party_invite", token))
        if now == "join" and number(event) >= 8:
            via = content.get("join_authorised_via_users_server")
            if isinstance(via, str):
                keys.add(("m.room.member", via))
    return keys


def auth_events_right(event: Event, events: Mapping[str, Event], rejected: Collection[str]) -> bool:
    """The rule on the auth events; `events` has all events of the room and perhaps of others."""
    if event.type == "m.room.create":
        return True
    if number(event) >= 12:
        create = events.get("$" + event.room_id[1:])
        if create is None or create.event_id in rejected:
            return False
        if create.type != "m.room.create" or create.state_key != "":
            return False
    found = [events[auth_id] for auth_id in event.auth_events]
    keys = [(auth.type, auth.state_key) for auth in found]
    if len(keys) != len(set(keys)):
        return False
    if any(key not in wanted_keys(event) for key in keys):
        return False
    if any(auth.event_id in rejected for auth in found):
        return False
    if number(event) < 12 and ("m.room.create", "") not in keys:
        return False
    return all(auth.room_id == event.room_id for auth in found)


# ---- memberships ----


def membership(state: State, user: object) -> str:
    event = state.get(("m.room.member", user)) if isinstance(user, str) else None
    now = event.content.get("membership") if event is not None else None
    return now if isinstance(now, str) else "leave"


def join_rule(state: State) -> Any:
    event = state.get(("m.room.join_rules", ""))
    return "invite" if event is None else event.content.get("join_rule", "invite")


def member_allowed(event: Event, state: State, create: Event, v: int) -> bool:
    content, sender, target = event.content, event.sender, event.state_key
    if target is None or "membership" not in content:
        return False
    if v >= 8 and "join_authorised_via_users_server" in content:
        via = content["join_authorised_via_users_server"]
        if not is_user_id(via) or not event.json["signatures"].get(domain(via)):
            return False
    now = content["membership"]
    before = membership(state, target)
    sender_in = membership(state, sender) == "join"
    power = level_of(sender, state)
    if now == "join":
        creator = create.content.get("creator") if v <= 10 else create.sender
        if list(event.prev_events) == [create.event_id] and target == creator:
            return True
        if sender != target or before == "ban":
            return False
        rule = join_rule(state)
        if rule == "invite" or (rule == "knock" and v >= 7):
            return before in ("invite", "join")
        if (rule == "restricted" and v >= 8) or (rule == "knock_restricted" and v >= 10):
            via = content.get("join_authorised_via_users_server")
            may_invite = isinstance(via, str) and level_of(via, state) >= scalar("invite", state)
            return before in ("invite", "join") or (may_invite and membership(state, via) == "join")
        return bool(rule == "public")
    if now == "invite":
        if "third_party_invite" in content:
            return before != "ban" and third_party_allowed(event, state)
        return sender_in and before not in ("join", "ban") and power >= scalar("invite", state)
    if now == "leave":
        if sender == target:
            return before in ("invite", "join") or (before == "knock" and v >= 7)
        if not sender_in or (before == "ban" and power < scalar("ban", state)):
            return False
        return power >= scalar("kick", state) and level_of(target, state) < power
    if now == "ban":
        return sender_in and power >= scalar("ban", state) and level_of(target, state) < power
    if now == "knock" and v >= 7:
        if join_rule(state) != "knock" and not (join_rule(state) == "knock_restricted" and v >= 10):
            return False
        return sender == target and before not in ("ban", "invite", "join")
    return False


def third_party_allowed(event: Event, state: State) -> bool:
    invite = event.content["third_party_invite"]
    if not isinstance(invite, dict) or not isinstance(invite.get("signed"), dict):
        return False
    signed = invite["signed"]
    if signed.get("mxid") != event.state_key or not isinstance(signed.get("token"), str):
        return False
    offer = state.get(("m.room.third_party_invite", signed["token"]))
    if offer is None or offer.sender != event.sender:
        return False
    several = offer.content.get("public_keys")
    entries = [offer.content, *(several if isinstance(several, list) else [])]
    keys = [entry.get("public_key") for entry in entries if isinstance(entry, dict)]
    message = canonical.encode({k: x for k, x in signed.items() if k not in ("signatures", "unsigned")})
    servers = signed.get("signatures")
    for of_server in servers.values() if isinstance(servers, dict) else ():
        for key_id, signature in of_server.items() if isinstance(of_server, dict) else ():
            for key in keys:
                if key_id.startswith("ed25519:") and verifies(key, message, signature):
                    return True
    return False


def verifies(key: Any, message: bytes, signature: Any) -> bool:
    try:
        nacl.signing.VerifyKey(unpadded.decode(key)).verify(message, unpadded.decode(signature))
    except (nacl.exceptions.CryptoError, ValueError, TypeError, AttributeError):
        return False
    return True


# ---- power levels ----


def level(value: object, v: int) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and v <= 9 and re.fullmatch(r"[+-]?[0-9]{1,4000}", value.strip()):
        return int(value)
    if isinstance(value, float) and v <= 5 and math.isfinite(value):
        return math.trunc(value)
    return None


def levels_event(state: State) -> tuple[dict[str, Any], int]:
    event = state.get(("m.room.power_levels", ""))
    return ({}, 1) if event is None else (event.content, number(event))


def scalar(name: str, state: State) -> int:
    content, v = levels_event(state)
    found = level(content.get(name), v)
    if found is not None:
        return found
    return {"ban": 50, "kick": 50, "redact": 50, "state_default": 50}.get(name, 0)


def entry(group: str, name: str, state: State) -> int | None:
    content, v = levels_event(state)
    entries = content.get(group)
    return level(entries.get(name), v) if isinstance(entries, dict) else None


def creators(create: Event) -> list[object]:
    if number(create) <= 10:
        return [create.content.get("creator")]
    more = create.content.get("additional_creators") if number(create) >= 12 else None
    return [create.sender, *(more if isinstance(more, list) else [])]


def level_of(user: str, state: State) -> float:
    create = state.get(("m.room.create", ""))
    if create is not None and user in creators(create):
        if number(create) >= 12:
            return math.inf
        if ("m.room.power_levels", "") not in state:
            return 100
    found = entry("users", user, state)
    return scalar("users_default", state) if found is None else found


def required(event: Event, state: State) -> int:
    found = entry("events", event.type, state)
    if found is not None:
        return found
    return scalar("events_default" if event.state_key is None else "state_default", state)


def levels_allowed(event: Event, state: State, create: Event, power: float, v: int) -> bool:
    new = event.content
    if v >= 10:
        if any(name in new and type(new[name]) is not int for name in SCALARS):
            return False
        for group in ("events", "notifications"):
            entries = new.get(group, {})
            if not isinstance(entries, dict) or any(type(x) is not int for x in entries.values()):
                return False
    users = new.get("users", {})
    if not isinstance(users, dict):
        return False
    if not all(is_user_id(user) and level(x, v) is not None for user, x in users.items()):
        return False
    if v <= 5:
        groups = [new.get(group) for group in ("events", "notifications")]
        values = [new.get(name) for name in SCALARS]
        values += [x for group in groups if isinstance(group, dict) for x in group.values()]
        if any(isinstance(x, float) and not math.isfinite(x) for x in values):
            return False
    if v >= 12 and any(user in users for user in creators(create)):
        return False
    if ("m.room.power_levels", "") not in state:
        return True
    old = state["m.room.power_levels", ""].content

    def of_group(content: dict[str, Any], group: str | None) -> dict[str, Any]:
        if group is None:
            return {name: content[name] for name in SCALARS if name in content}
        found = content.get(group)
        return found if isinstance(found, dict) else {}

    for part in (None, "events", "notifications", "users"):
        if part == "notifications" and v < 6:
            continue
        before, after = of_group(old, part), of_group(new, part)
        for name in sorted(set(before) | set(after)):
            was, shall = level(before.get(name), v), level(after.get(name), v)
            if name in after and shall is None:
                untouched = name in before and was is None and before[name] == after[name]
                if not untouched:
                    return False
            if was == shall:
                continue
            if part == "users":
                if was is not None and was >= power and name != event.sender:
                    return False
            elif was is not None and was > power:
                return False
            if shall is not None and shall > power:
                return False
    return True
