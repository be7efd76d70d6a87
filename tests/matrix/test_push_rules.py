# SPDX-License-Identifier: Apache-2.0
"""The predefined push rules, and how a user's changes are laid over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minihs.matrix import push_rules
from minihs.matrix.errors import MatrixError

ALICE = "@alice:example.org"

SPECIFIED = json.loads((Path(__file__).parent / "predefined_push_rules.json").read_text())
"""The JSON blocks of client-server-api, "Predefined Rules", in their order."""


def put(changes: dict[str, Any], kind: str, rule_id: str, **options: Any) -> dict[str, Any]:
    body = {"actions": ["notify"], **({"pattern": "cake"} if kind == "content" else {})}
    where = {"before": None, "after": None, **options}
    return push_rules.put_rule(changes, kind, rule_id, body, **where)


def own_ids(changes: dict[str, Any], kind: str) -> list[str]:
    return [rule["rule_id"] for rule in push_rules.ruleset(ALICE, changes)[kind] if not rule["default"]]


def test_the_predefined_rules_are_those_of_the_specification() -> None:
    expected = json.loads(json.dumps(SPECIFIED).replace("[the user's Matrix ID]", ALICE))
    assert push_rules.ruleset(ALICE, {}) == expected


def test_own_rules_come_after_master_and_before_the_other_predefined_ones() -> None:
    rules = push_rules.ruleset(ALICE, put({}, "override", "mine"))["override"]
    assert [rule["rule_id"] for rule in rules[:3]] == [
        ".m.rule.master",
        "mine",
        ".m.rule.suppress_notices",
    ]


def test_a_new_rule_is_enabled_and_the_most_important_of_its_kind() -> None:
    changes = put(put({}, "content", "first"), "content", "second")
    assert own_ids(changes, "content") == ["second", "first"]
    assert all(rule["enabled"] for rule in push_rules.ruleset(ALICE, changes)["content"])


@pytest.mark.parametrize(
    ("where", "order"),
    [
        ({"before": "b"}, ["a", "new", "b", "c"]),
        ({"after": "b"}, ["a", "b", "new", "c"]),
        ({"before": "c", "after": "a"}, ["a", "b", "new", "c"]),
    ],
)
def test_a_rule_goes_where_before_and_after_say(where: dict[str, str], order: list[str]) -> None:
    changes = put(put(put({}, "override", "c"), "override", "b"), "override", "a")
    assert own_ids(put(changes, "override", "new", **where), "override") == order


def test_a_changed_rule_keeps_its_place_and_stays_disabled() -> None:
    changes = put(put({}, "override", "old"), "override", "new")
    changes = push_rules.edit_rule(ALICE, changes, "override", "old", enabled=False)
    changes = put(changes, "override", "old")
    assert own_ids(changes, "override") == ["new", "old"]
    assert push_rules.rule_of(ALICE, changes, "override", "old")["enabled"] is False


def test_a_rule_can_be_moved() -> None:
    changes = put(put(put({}, "override", "c"), "override", "b"), "override", "a")
    assert own_ids(put(changes, "override", "a", after="c"), "override") == ["b", "c", "a"]


def test_an_unknown_neighbour_is_an_error() -> None:
    with pytest.raises(MatrixError) as refused:
        put({}, "override", "mine", before="nothing")
    assert (refused.value.status, refused.value.errcode) == (400, "M_UNKNOWN")


def test_a_rule_can_not_be_placed_next_to_a_predefined_one() -> None:
    with pytest.raises(MatrixError) as refused:
        put({}, "override", "mine", after=".m.rule.master")
    assert refused.value.status == 400


def test_a_predefined_rule_can_be_disabled_and_given_other_actions() -> None:
    changes = push_rules.edit_rule(ALICE, {}, "underride", ".m.rule.message", enabled=False)
    changes = push_rules.edit_rule(ALICE, changes, "underride", ".m.rule.message", actions=[])
    rule = push_rules.rule_of(ALICE, changes, "underride", ".m.rule.message")
    assert (rule["enabled"], rule["actions"], rule["default"]) == (False, [], True)


def test_a_predefined_rule_can_not_be_deleted() -> None:
    with pytest.raises(MatrixError) as refused:
        push_rules.delete_rule({}, "override", ".m.rule.master")
    assert refused.value.status == 400


def test_a_deleted_rule_is_gone() -> None:
    changes = push_rules.delete_rule(put({}, "room", "!r:example.org"), "room", "!r:example.org")
    assert push_rules.ruleset(ALICE, changes) == push_rules.ruleset(ALICE, {})
    with pytest.raises(MatrixError) as refused:
        push_rules.delete_rule(changes, "room", "!r:example.org")
    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("rule_id", ["", ".m.rule.mine", "a/b", "a\\b", "x" * 2000, "a\0b"])
def test_bad_rule_ids_are_refused(rule_id: str) -> None:
    with pytest.raises(MatrixError) as refused:
        put({}, "override", rule_id)
    assert refused.value.status == 400


def test_historical_actions_are_dropped() -> None:
    body = {"actions": ["dont_notify", "coalesce", "notify", {"set_tweak": "sound", "value": "x", "y": 1}]}
    assert push_rules.checked_actions(body) == ["notify", {"set_tweak": "sound", "value": "x"}]


@pytest.mark.parametrize(
    "actions",
    ["notify", [1], [None], [{"value": "x"}], [{"set_tweak": 1}], ["explode"], ["notify"] * 100,
     [{"set_tweak": "sound", "value": {}}], [{"set_tweak": "sound", "value": "x" * 5000}]],
)  # fmt: skip
def test_malformed_actions_are_refused(actions: Any) -> None:
    with pytest.raises(MatrixError) as refused:
        push_rules.checked_actions({"actions": actions})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "conditions",
    ["x", [1], [{}], [{"kind": 1}], [{"kind": "event_match", "key": 1}], [{"kind": "x"}] * 100,
     [{"kind": "event_match", "pattern": "x" * 5000}], [{"kind": "event_property_is", "value": []}],
     [{"kind": "x", **{str(i): i for i in range(50)}}]],
)  # fmt: skip
def test_malformed_conditions_are_refused(conditions: Any) -> None:
    with pytest.raises(MatrixError) as refused:
        push_rules.put_rule(
            {}, "override", "x", {"actions": [], "conditions": conditions}, before=None, after=None
        )
    assert refused.value.status == 400


def test_a_content_rule_needs_a_pattern() -> None:
    with pytest.raises(MatrixError) as refused:
        push_rules.put_rule({}, "content", "x", {"actions": []}, before=None, after=None)
    assert refused.value.errcode == "M_MISSING_PARAM"


def test_the_number_of_rules_is_limited_but_changing_one_always_works() -> None:
    changes: dict[str, Any] = {
        "rules": {
            "sender": [
                {"rule_id": f"@{i}:x.org", "enabled": True, "actions": []}
                for i in range(push_rules.MAX_RULES)
            ]
        }
    }
    with pytest.raises(MatrixError):
        put(changes, "room", "!one-more:x.org")
    put(changes, "sender", "@7:x.org")


@pytest.mark.parametrize("edit", ["rule_of", "edit_rule"])
def test_unknown_rules_and_kinds_are_not_found(edit: str) -> None:
    for kind, rule_id in [("override", "nothing"), ("nothing", ".m.rule.master")]:
        with pytest.raises(MatrixError) as refused:
            getattr(push_rules, edit)(ALICE, {}, kind, rule_id)
        assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")
