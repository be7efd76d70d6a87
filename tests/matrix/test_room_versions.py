# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

from minihs.matrix.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS, RoomVersion

ALL = [str(n) for n in range(1, 13)]


def versions_with(field: str, *values: object) -> list[str]:
    return [version for version, rules in ROOM_VERSIONS.items() if getattr(rules, field) in values]


def since(number: int) -> list[str]:
    return [str(n) for n in range(number, 13)]


def until(number: int) -> list[str]:
    return [str(n) for n in range(1, number + 1)]


def test_all_stable_versions_are_there_and_twelve_is_for_new_rooms() -> None:
    assert list(ROOM_VERSIONS) == ALL
    assert all(version == rules.version == str(rules) for version, rules in ROOM_VERSIONS.items())
    assert DEFAULT_ROOM_VERSION == "12"


def test_what_each_version_does() -> None:
    table = {
        ("event_format", 1): until(2),
        ("event_format", 2): ["3"],
        ("event_format", 3): since(4),
        ("strict_json", True): since(6),
        ("room_id_is_create_hash", True): ["12"],
        ("redaction", "v1"): until(5),
        ("redaction", "v6"): ["6", "7"],
        ("redaction", "v8"): ["8"],
        ("redaction", "v9"): ["9", "10"],
        ("redaction", "v11"): since(11),
        ("redacts_in_content", True): since(11),
        ("event_id_server_signs", True): until(2),
        ("enforce_key_validity", True): since(5),
        ("state_res", "v1"): ["1"],
        ("state_res", "v2"): [str(n) for n in range(2, 12)],
        ("state_res", "v2.1"): ["12"],
        ("creator_in_content", True): until(10),
        ("create_event_in_auth_events", True): until(11),
        ("special_aliases_rule", True): until(5),
        ("redactions_in_auth_rules", True): until(2),
        ("check_notification_levels", True): since(6),
        ("knock", True): since(7),
        ("restricted_join", True): since(8),
        ("knock_restricted", True): since(10),
        ("integer_power_levels", True): since(10),
        ("privileged_creators", True): ["12"],
    }
    for (field, value), expected in table.items():
        assert versions_with(field, value) == expected, field
    assert {field for field, _ in table} == {f.name for f in dataclasses.fields(RoomVersion)} - {"version"}
