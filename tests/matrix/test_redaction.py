# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix.redaction import redact
from minihs.matrix.room_versions import ROOM_VERSIONS

OLD = ["1", "5", "6", "7", "8", "9", "10"]
NEW = ["11", "12"]
ALL = [*OLD, *NEW]

KEPT = {"type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth", "event_id"} | {
    "prev_events",
    "auth_events",
    "origin_server_ts",
}
OLD_KEPT = {"prev_state", "origin", "membership"}
POWER = {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}

# rooms/v1, v6, v8, v9, v11: event type -> room versions -> keys of content that stay
CONTENT: list[tuple[str, list[str], set[str]]] = [
    ("m.room.member", ["1", "5", "6", "7", "8"], {"membership"}),
    ("m.room.member", ["9", "10", "11", "12"], {"membership", "join_authorised_via_users_server"}),
    ("m.room.create", OLD, {"creator"}),
    ("m.room.join_rules", ["1", "5", "6", "7"], {"join_rule"}),
    ("m.room.join_rules", ["8", "9", "10", "11", "12"], {"join_rule", "allow"}),
    ("m.room.power_levels", OLD, POWER),
    ("m.room.power_levels", NEW, POWER | {"invite"}),
    ("m.room.aliases", ["1", "5"], {"aliases"}),
    ("m.room.aliases", ["6", "7", "8", "9", "10", "11", "12"], set()),
    ("m.room.history_visibility", ALL, {"history_visibility"}),
    ("m.room.redaction", OLD, set()),
    ("m.room.redaction", NEW, {"redacts"}),
    ("m.room.message", ALL, set()),
    ("m.room.name", ALL, set()),
    ("", ALL, set()),
]
EVERYTHING = dict.fromkeys(
    POWER
    | {"membership", "join_authorised_via_users_server", "creator", "join_rule", "allow", "aliases", "invite"}
    | {"history_visibility", "redacts", "notifications", "body", "displayname", "third_party_invite", "name"},
    1,
)


def pdu(**changes: Any) -> dict[str, Any]:
    keys = KEPT | OLD_KEPT | {"unsigned", "redacts", "age_ts", "foo"}
    return {**dict.fromkeys(keys, "x"), "type": "m.room.message", "content": {}, **changes}


@pytest.mark.parametrize(("type_", "versions", "keys"), CONTENT)
def test_what_stays_of_content(type_: str, versions: list[str], keys: set[str]) -> None:
    for version in versions:
        redacted = redact(pdu(type=type_, content=EVERYTHING), ROOM_VERSIONS[version])
        assert redacted["content"] == dict.fromkeys(keys, 1), version


@pytest.mark.parametrize("version", NEW)
def test_a_create_event_keeps_all_its_content_since_version_11(version: str) -> None:
    assert (
        redact(pdu(type="m.room.create", content=EVERYTHING), ROOM_VERSIONS[version])["content"] == EVERYTHING
    )


def test_what_stays_of_the_event_itself() -> None:
    for version in OLD:
        assert set(redact(pdu(), ROOM_VERSIONS[version])) == KEPT | OLD_KEPT
    for version in NEW:
        assert set(redact(pdu(), ROOM_VERSIONS[version])) == KEPT


def test_of_a_third_party_invite_its_signed_part_stays_since_version_11() -> None:
    invite = {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}, "display_name": "n"}}
    for version in OLD:
        content = redact(pdu(type="m.room.member", content=invite), ROOM_VERSIONS[version])["content"]
        assert content == {"membership": "invite"}
    for version in NEW:
        content = redact(pdu(type="m.room.member", content=invite), ROOM_VERSIONS[version])["content"]
        assert content == {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}}


def test_what_is_absent_is_not_invented() -> None:
    for version in ROOM_VERSIONS.values():
        assert redact({"type": "m.room.member", "content": {}}, version) == {
            "type": "m.room.member",
            "content": {},
        }


@pytest.mark.parametrize("content", [None, [], "x", 5])
def test_malformed_content_becomes_empty(content: Any) -> None:
    for version in ROOM_VERSIONS.values():
        assert redact({"type": "m.room.create", "content": content}, version)["content"] == {}
        assert redact({"type": ["m.room.create"], "content": {"creator": 1}}, version)["content"] == {}


def test_the_original_is_left_alone_and_redacting_twice_changes_nothing() -> None:
    for version in ROOM_VERSIONS.values():
        original = pdu(type="m.room.member", content={"membership": "join", "third_party_invite": {"a": 1}})
        redacted = redact(original, version)
        assert original == pdu(
            type="m.room.member", content={"membership": "join", "third_party_invite": {"a": 1}}
        )
        assert redact(redacted, version) == redacted
