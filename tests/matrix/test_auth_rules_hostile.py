# SPDX-License-Identifier: Apache-2.0
"""The rules answer, and only answer, whatever the content of the events is."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minihs.matrix.auth_rules import AuthError, PowerLevels, allowing_rule, auth_types_for, redaction_allowed
from minihs.matrix.room_versions import ROOM_VERSIONS
from minihs.matrix.signatures import SigningKey, sign_json
from tests.matrix.auth_world import ADMIN, CREATOR, MOD, OTHER, STRANGER, USER, World

USERS = [CREATOR, ADMIN, MOD, USER, OTHER, STRANGER, "@", "", "x", "@a:b:c", "@user"]
NAMES = [
    "membership",
    "join_rule",
    "third_party_invite",
    "signed",
    "mxid",
    "token",
    "signatures",
    "users",
    "events",
    "ban",
    "invite",
    "users_default",
    "public_key",
    "public_keys",
    "creator",
    "additional_creators",
    "m.federate",
    "join_authorised_via_users_server",
    "notifications",
    "room_version",
    "redacts",
    "allow",
]
WORDS = [
    "join",
    "invite",
    "leave",
    "ban",
    "knock",
    "public",
    "restricted",
    "knock_restricted",
    "token",
    "50",
    "1e5",
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([*USERS, *WORDS])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, *USERS]), inner, max_size=4)
    ),
    max_leaves=8,
)
contents = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)
memberships = st.builds(
    lambda membership, rest: {**rest, "membership": membership}, st.sampled_from(WORDS[:5]) | values, contents
)
TYPES = [
    "m.room.create",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.third_party_invite",
    "m.room.aliases",
    "m.room.redaction",
    "m.room.message",
]


@settings(max_examples=250, deadline=None)
@given(
    version=st.sampled_from(sorted(ROOM_VERSIONS)),
    type=st.sampled_from(TYPES),
    sender=st.sampled_from(USERS[:6]),
    state_key=st.none() | st.sampled_from(USERS),
    content=contents | memberships,
    state=st.lists(
        st.tuples(st.sampled_from(TYPES[:5]), st.sampled_from(USERS), contents | memberships), max_size=5
    ),
)
def test_a_hostile_event_in_a_hostile_state_is_allowed_or_not_and_nothing_else(
    version: str, type: str, sender: str, state_key: str | None, content: dict[str, Any], state: Any
) -> None:
    w = World(version)
    for state_type, key, state_content in state:
        if state_type == "m.room.create":
            w.create.content.update(state_content)
        else:
            w.put(w.event(state_type, ADMIN, state_content, key if state_type == "m.room.member" else ""))
    event = w.event(type, sender, content, state_key)
    with suppress(AuthError):
        allowing_rule(event, w.state)
    auth_types_for(w.version, type=type, sender=sender, state_key=state_key, content=content)
    redaction_allowed(event, event, w.state)
    levels = PowerLevels.from_state(w.state)
    assert isinstance(levels.user(sender), int | float)
    assert isinstance(levels.event_level(type, True), int)


@settings(max_examples=150, deadline=None)
@given(
    version=st.sampled_from(sorted(ROOM_VERSIONS)),
    before=st.dictionaries(st.sampled_from(NAMES), values, max_size=6),
    after=st.dictionaries(st.sampled_from(NAMES), values, max_size=6),
)
def test_nobody_gains_power_by_odd_power_levels(
    version: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    w = World(version)
    usual = {"users": {MOD: 50, ADMIN: 100}, "state_default": 50}
    w.put(w.event("m.room.power_levels", CREATOR, {**before, **usual}, ""))
    old = PowerLevels.from_state(w.state)
    event = w.event("m.room.power_levels", MOD, after, "")
    try:
        allowing_rule(event, w.state)
    except AuthError:
        return
    w.put(event)
    new = PowerLevels.from_state(w.state)
    for user in USERS:
        if new.user(user) > old.user(user):
            assert new.user(user) <= 50
    assert new.user(ADMIN) == old.user(ADMIN) == 100


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
def test_an_invite_full_of_signatures_is_judged_quickly(version: str) -> None:
    w = World(version)
    signed: dict[str, Any] = {"mxid": STRANGER, "token": "t"}
    for server in range(500):
        signed = {
            **signed,
            "signatures": {**signed.get("signatures", {}), f"s{server}": {"ed25519:1": "A" * 86}},
        }
    keys = [
        {"public_key": SigningKey(bytes([n // 256, n % 256]) * 16, "1").verify_key_base64} for n in range(600)
    ]
    w.put(w.event("m.room.third_party_invite", USER, {"public_keys": keys}, "t"))
    start = time.process_time()
    with pytest.raises(AuthError):
        w.membership(USER, STRANGER, "invite", third_party_invite={"signed": signed})()
    assert time.process_time() - start < 0.5


def test_a_signature_counts_although_a_few_others_stand_beside_it() -> None:
    w = World("12")
    key = SigningKey(b"k" * 32, "1")
    signed = sign_json({"mxid": STRANGER, "token": "t"}, "z.test", key)
    for server in "abcdefghij":
        signed["signatures"][server] = {"ed25519:1": "A" * 86, "curve25519:1": "A"}
    keys = [SigningKey(bytes([n]) * 32, "1").verify_key_base64 for n in range(10)]
    content = {"public_keys": [{"public_key": text} for text in [*keys, key.verify_key_base64]]}
    w.put(w.event("m.room.third_party_invite", USER, content, "t"))
    assert w.membership(USER, STRANGER, "invite", third_party_invite={"signed": signed})() == "5.4.1.7"
