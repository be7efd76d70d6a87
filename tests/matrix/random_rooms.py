# SPDX-License-Identifier: Apache-2.0
"""Rooms in which users do random things on random forks, for hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from minihs.matrix.auth_rules import AuthError, check_auth
from minihs.matrix.event import Event
from minihs.testing.events import RoomFactory

ALICE = "@alice:a.test"
USERS = [ALICE, "@bob:b.test", "@carol:c.test", "@dave:a.test"]
_LEVELS = [0, 1, 50, 50, 99, 100]
_RULES = ["public", "invite", "knock", "restricted", "knock_restricted", "private"]

type State = dict[tuple[str, str], str]


def _member(draw: Callable[..., Any], room: RoomFactory, sender: str) -> tuple[str, dict[str, Any], str]:
    target = draw(st.sampled_from(USERS))
    kinds = ["join", "join", "leave"] if target == sender else ["invite", "leave", "ban"]
    content: dict[str, Any] = {"membership": draw(st.sampled_from([*kinds, "knock"]))}
    if draw(st.integers(0, 4)) == 0:
        content["join_authorised_via_users_server"] = draw(st.sampled_from(USERS))
    return "m.room.member", content, target


def _levels(draw: Callable[..., Any], room: RoomFactory, sender: str) -> tuple[str, dict[str, Any], str]:
    users = draw(st.dictionaries(st.sampled_from(USERS), st.sampled_from(_LEVELS), max_size=4))
    if room.version.privileged_creators:
        users.pop(ALICE, None)
    elif draw(st.booleans()):
        users[ALICE] = 100
    content: dict[str, Any] = {"users": users}
    for name in ("invite", "ban", "state_default", "users_default"):
        if draw(st.integers(0, 5)) == 0:
            content[name] = draw(st.sampled_from(_LEVELS))
    return "m.room.power_levels", content, ""


def _rules(draw: Callable[..., Any], room: RoomFactory, sender: str) -> tuple[str, dict[str, Any], str]:
    return "m.room.join_rules", {"join_rule": draw(st.sampled_from(_RULES))}, ""


def _state(draw: Callable[..., Any], room: RoomFactory, sender: str) -> tuple[str, dict[str, Any], str]:
    type = draw(st.sampled_from(["m.room.topic", "m.room.name"]))
    return type, {"n": len(room.events)}, draw(st.sampled_from(["", sender]))


_ACTS = [_member, _member, _member, _levels, _levels, _rules, _state, _state]


@st.composite
def rooms(draw: Callable[..., Any], versions: list[str], max_events: int = 24) -> RoomFactory:
    """A room of up to that many events beyond the first; what the rules forbid is in it too, as rejected."""
    room = RoomFactory(version=draw(st.sampled_from(versions)), creator=ALICE)
    if draw(st.booleans()):
        for user in USERS[1:3]:
            room.join(user)
    for _ in range(draw(st.integers(1, max_events))):
        # Mostly on from one of the latest events, so that branches grow long.
        known = list(room.events.values())
        count = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
        picks = st.sampled_from(known[-4:]) | st.sampled_from(known[3:])
        after = list({event.event_id: event for event in (draw(picks) for _ in range(count))})
        sender = draw(st.sampled_from(USERS))
        type, content, state_key = draw(st.sampled_from(_ACTS))(draw, room, sender)
        add(room, after, sender, type, content, state_key, ts=1_000_000 + draw(st.integers(0, 5)))
    return room


def add(
    room: RoomFactory,
    after: list[str],
    sender: str,
    type: str,
    content: dict[str, Any],
    state_key: str,
    ts: int,
) -> Event:
    """Add an event that may be against the rules, and then is rejected."""
    before = room.state_before(after)
    event = room.build(sender, type, content, state_key, prev_events=after, state=before, ts=ts)
    if event.event_id in room.events:
        return event
    try:
        check_auth(event, before)
    except AuthError:
        room.add(event, before, after, rejected=True)
    else:
        room.add(event, before, after)
    return event


def ids(state: dict[tuple[str, str], Event]) -> State:
    return {key: event.event_id for key, event in state.items()}


@st.composite
def forks(draw: Callable[..., Any], versions: list[str]) -> tuple[RoomFactory, list[State]]:
    """A room and the states after a few of its events."""
    room = draw(rooms(versions))
    tips = draw(st.lists(st.sampled_from(list(room.events.values())[-10:]), min_size=2, max_size=4))
    return room, [ids(room.state_after(event)) for event in tips]


@st.composite
def made_up_states(draw: Callable[..., Any], versions: list[str]) -> tuple[RoomFactory, list[State]]:
    """A room and states that no server should have: each key has, in each, any of its events, or none. Such
    states do come from other servers when a gap is filled. Some events count as rejected without being so."""
    room = draw(rooms(versions))
    by_key: dict[tuple[str, str], list[str | None]] = {}
    for event in room.events.values():
        if event.key is not None and event.event_id not in room.rejected:
            by_key.setdefault(event.key, [None]).append(event.event_id)
    create = by_key.pop(("m.room.create", ""))[1]
    assert create is not None
    count = draw(st.integers(2, 3))
    states: list[State] = [{("m.room.create", ""): create} for _ in range(count)]
    for key, choices in by_key.items():
        shared = draw(st.booleans())
        value = draw(st.sampled_from(choices))
        for state in states:
            if not shared:
                value = draw(st.sampled_from(choices))
            if value is not None:
                state[key] = value
    room.rejected |= set(draw(st.lists(st.sampled_from(list(room.events)[1:]), max_size=4)))
    return room, states
