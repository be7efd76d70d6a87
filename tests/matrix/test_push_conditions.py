# SPDX-License-Identifier: Apache-2.0
"""Which rule matches which event; the examples of the specification among them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from minihs.matrix.push_conditions import (
    MAX_TYPES,
    CompiledRules,
    PushContext,
    compile_condition,
    split_path,
)
from minihs.matrix.push_rules import edit_rule, put_rule, ruleset

ALICE = "@alice:example.org"
SMALL = PushContext(member_count=2, sender_power=0)
LARGE = PushContext(member_count=30, sender_power=0)


def message(body: Any = "hello", **content: Any) -> dict[str, Any]:
    return {
        "type": "m.room.message",
        "sender": "@bob:example.org",
        "room_id": "!r:example.org",
        "content": {"msgtype": "m.text", "body": body, **content},
    }


def holds(condition: dict[str, Any], event: dict[str, Any], context: PushContext = SMALL) -> bool:
    return compile_condition(condition)(event, context)


def matched(
    event: dict[str, Any], context: PushContext = LARGE, changes: dict[str, Any] | None = None
) -> str:
    outcome = CompiledRules(ruleset(ALICE, changes or {})).evaluate(event, context)
    return "" if outcome is None else outcome.rule_id


class TestEventMatch:
    @pytest.mark.parametrize(
        ("topic", "expected"),
        [
            ("Lunch plans", True),
            ("LUNCH", True),
            (" lunch", False),
            ("lunc", False),
            (None, False),
            (1, False),
        ],
    )
    def test_the_whole_value_must_match(self, topic: Any, expected: bool) -> None:
        condition = {"kind": "event_match", "key": "content.topic", "pattern": "lunc?*"}
        assert holds(condition, {"content": {"topic": topic}}) is expected

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("An example event.", True),
            ("exple", True),
            ("An exciting triple-whammy", True),
            ("examples", False),
            ("nexample", False),
            ("ex_ample_", False),
            ("", False),
        ],
    )
    def test_the_body_matches_between_word_boundaries(self, body: str, expected: bool) -> None:
        condition = {"kind": "event_match", "key": "content.body", "pattern": "ex*ple"}
        assert holds(condition, message(body)) is expected

    def test_a_body_match_looks_past_the_first_place_that_does_not_fit(self) -> None:
        condition = {"kind": "event_match", "key": "content.body", "pattern": "tea"}
        assert holds(condition, message("teapot, then tea"))
        assert holds(condition, message("Tea!"))
        assert not holds(condition, message("teapot steam"))

    def test_a_question_mark_stands_for_exactly_one_character(self) -> None:
        condition = {"kind": "event_match", "key": "content.body", "pattern": "t?a"}
        assert holds(condition, message("a tea"))
        assert holds(condition, message("t\na"))
        assert not holds(condition, message("ta"))

    def test_special_characters_of_regular_expressions_mean_themselves(self) -> None:
        condition = {"kind": "event_match", "key": "content.body", "pattern": "a.c(d)"}
        assert holds(condition, message("x a.c(d) y"))
        assert not holds(condition, message("abc(d)"))

    def test_an_absent_property_never_matches(self) -> None:
        assert not holds({"kind": "event_match", "key": "content.nothing", "pattern": "*"}, message())

    def test_there_is_no_implicit_state_key(self) -> None:
        condition = {"kind": "event_match", "key": "state_key", "pattern": ""}
        assert holds(condition, {"state_key": ""})
        assert not holds(condition, message())

    def test_matching_takes_no_time_with_many_stars(self) -> None:
        condition = {"kind": "event_match", "key": "content.body", "pattern": "a*" * 200 + "b"}
        started = time.perf_counter()
        assert not holds(condition, message("a" * 60_000))
        assert time.perf_counter() - started < 1.0


class TestProperties:
    @pytest.mark.parametrize(
        ("value", "expected"), [(True, True), ("true", False), (1, False), (1.0, False), (None, False)]
    )
    def test_event_property_is_casts_no_types(self, value: Any, expected: bool) -> None:
        condition = {"kind": "event_property_is", "key": "content.m\\.federate", "value": True}
        assert holds(condition, {"content": {"m.federate": value}}) is expected

    def test_null_equals_null_but_not_absence(self) -> None:
        condition = {"kind": "event_property_is", "key": "content.x", "value": None}
        assert holds(condition, {"content": {"x": None}})
        assert not holds(condition, {"content": {}})

    @pytest.mark.parametrize("value", [[], {}, 1.5, 2**53])
    def test_a_compound_or_inexact_value_never_matches(self, value: Any) -> None:
        condition = {"kind": "event_property_is", "key": "content.x", "value": value}
        assert not holds(condition, {"content": {"x": value}})

    def test_event_property_contains_wants_an_array_with_the_exact_value(self) -> None:
        condition = {"kind": "event_property_contains", "key": "content.alt_aliases", "value": "#a:b.org"}
        assert holds(condition, {"content": {"alt_aliases": ["#x:b.org", "#a:b.org"]}})
        assert not holds(condition, {"content": {"alt_aliases": ["#a:b.org:"]}})
        assert not holds(condition, {"content": {"alt_aliases": "#a:b.org"}})
        number = {**condition, "value": 1}
        assert not holds(number, {"content": {"alt_aliases": [True]}})

    @pytest.mark.parametrize(
        ("path", "names"),
        [
            ("content.body", ("content", "body")),
            (r"content.m\.relates_to.rel_type", ("content", "m.relates_to", "rel_type")),
            (r"content.m\\foo", ("content", "m\\foo")),
            (r"content.\x", ("content", "\\x")),
            ("a\\", ("a\\",)),
            ("", ("",)),
        ],
    )
    def test_paths_are_split_at_dots_that_are_not_escaped(self, path: str, names: tuple[str, ...]) -> None:
        assert split_path(path) == names


class TestOtherConditions:
    @pytest.mark.parametrize(
        ("limit", "expected"),
        [("2", True), ("==2", True), ("<2", False), ("<3", True), (">1", True), (">=2", True), ("<=1", False),
         ("=2", False), ("", False), (" 2", False), ("2x", False), ("-2", False), ("²", False)],
    )  # fmt: skip
    def test_room_member_count(self, limit: str, expected: bool) -> None:
        assert holds({"kind": "room_member_count", "is": limit}, message()) is expected

    @pytest.mark.parametrize(("power", "expected"), [(50, True), (49, False), (float("inf"), True)])
    def test_the_sender_needs_the_power_to_notify(self, power: float, expected: bool) -> None:
        condition = {"kind": "sender_notification_permission", "key": "room"}
        assert holds(condition, message(), PushContext(3, power)) is expected

    def test_the_room_can_set_another_level_for_notifying(self) -> None:
        condition = {"kind": "sender_notification_permission", "key": "room"}
        assert holds(condition, message(), PushContext(3, 10, {"room": 10}))

    def test_contains_display_name_takes_the_name_as_it_is(self) -> None:
        condition = {"kind": "contains_display_name"}
        assert holds(condition, message("hi ALICE."), PushContext(2, 0, display_name="Alice"))
        assert not holds(condition, message("malice"), PushContext(2, 0, display_name="alice"))
        assert not holds(condition, message("what"), PushContext(2, 0, display_name="w?at"))
        assert not holds(condition, message("what"), PushContext(2, 0, display_name=None))

    @pytest.mark.parametrize(
        "condition",
        [
            {"kind": "unknown"},
            {"kind": "event_match"},
            {"kind": "event_match", "key": 1, "pattern": "*"},
            {"kind": "event_property_is", "key": "type"},
            {"kind": "event_property_contains", "value": "x"},
            {"kind": "room_member_count", "is": 2},
            {"kind": "sender_notification_permission"},
            {},
        ],
    )
    def test_unknown_and_malformed_conditions_never_match(self, condition: dict[str, Any]) -> None:
        assert not holds(condition, message())


class TestRules:
    def test_a_message_in_a_large_room_notifies_without_sound(self) -> None:
        outcome = CompiledRules(ruleset(ALICE, {})).evaluate(message(), LARGE)
        assert outcome is not None
        assert (outcome.rule_id, outcome.notify, outcome.highlight, outcome.tweaks) == (
            ".m.rule.message",
            True,
            False,
            {},
        )

    def test_a_message_between_two_sounds(self) -> None:
        outcome = CompiledRules(ruleset(ALICE, {})).evaluate(message(), SMALL)
        assert outcome is not None
        assert outcome.tweaks == {"sound": "default"}

    def test_a_mention_highlights(self) -> None:
        event = message("hi", **{"m.mentions": {"user_ids": [ALICE]}})
        outcome = CompiledRules(ruleset(ALICE, {})).evaluate(event, LARGE)
        assert outcome is not None
        assert outcome.highlight
        assert outcome.notify

    @pytest.mark.parametrize("user_ids", [ALICE, [ALICE + "x"], {"0": ALICE}, None])
    def test_a_mention_of_others_or_malformed_does_not(self, user_ids: Any) -> None:
        assert matched(message("hi", **{"m.mentions": {"user_ids": user_ids}})) == ".m.rule.message"

    def test_mentioning_the_room_takes_power(self) -> None:
        event = message("hi", **{"m.mentions": {"room": True}})
        assert matched(event, PushContext(30, 49)) == ".m.rule.message"
        assert matched(event, PushContext(30, 50)) == ".m.rule.is_room_mention"

    def test_notices_edits_reactions_and_acls_do_not_notify(self) -> None:
        assert matched({**message(), "content": {"msgtype": "m.notice"}}) == ".m.rule.suppress_notices"
        assert matched(message(**{"m.relates_to": {"rel_type": "m.replace"}})) == ".m.rule.suppress_edits"
        assert matched({"type": "m.reaction", "content": {}}) == ".m.rule.reaction"
        acl = {"type": "m.room.server_acl", "state_key": "", "content": {}}
        assert matched(acl) == ".m.rule.room.server_acl"

    def test_an_invite_notifies_only_the_invited(self) -> None:
        invite = {"type": "m.room.member", "state_key": ALICE, "content": {"membership": "invite"}}
        assert matched(invite) == ".m.rule.invite_for_me"
        assert matched({**invite, "state_key": "@carol:example.org"}) == ".m.rule.member_event"

    def test_master_silences_everything(self) -> None:
        changes = edit_rule(ALICE, {}, "override", ".m.rule.master", enabled=True)
        outcome = CompiledRules(ruleset(ALICE, changes)).evaluate(message(), LARGE)
        assert outcome is not None
        assert not outcome.notify

    def test_kinds_are_checked_in_their_order(self) -> None:
        changes: dict[str, Any] = {}
        expected = ".m.rule.message"
        for kind, rule_id in [
            ("underride", "u"),
            ("sender", "@bob:example.org"),
            ("room", "!r:example.org"),
            ("content", "c"),
            ("override", "o"),
        ]:
            assert matched(message("cake"), LARGE, changes) == expected
            body = {"actions": [], "pattern": "cake", "conditions": []}
            changes = put_rule(changes, kind, rule_id, body, before=None, after=None)
            expected = rule_id
        assert matched(message("cake"), LARGE, changes) == expected

    def test_a_disabled_rule_never_matches(self) -> None:
        changes = edit_rule(ALICE, {}, "underride", ".m.rule.message", enabled=False)
        assert matched(message(), LARGE, changes) == ""

    def test_highlight_without_a_value_is_true_and_can_be_false(self) -> None:
        for value, expected in [({}, True), ({"value": True}, True), ({"value": False}, False)]:
            body = {"actions": [{"set_tweak": "highlight", **value}]}
            changes = put_rule({}, "override", "x", body, before=None, after=None)
            outcome = CompiledRules(ruleset(ALICE, changes)).evaluate(message(), LARGE)
            assert outcome is not None
            assert outcome.highlight is expected

    def test_rules_for_other_types_are_passed_over_and_no_others(self) -> None:
        def wants(key: str, pattern: str) -> dict[str, Any]:
            return {"kind": "event_match", "key": key, "pattern": pattern}

        changes: dict[str, Any] = {}
        for rule_id, conditions in {
            "other key": [wants("content.type", "m.x")],
            "wildcard": [wants("type", "m.st?r")],
            "two": [wants("type", "m.two"), wants("content.body", "both")],
            "never": [wants("type", "m.x"), wants("type", "m.y")],
            "twice": [wants("type", "m.x"), wants("type", "M.X")],
            "no type": [{"kind": "event_property_is", "key": "type", "value": "m.is"}],
        }.items():
            body = {"actions": [], "conditions": conditions}
            changes = put_rule(changes, "override", rule_id, body, before=None, after=None)
        rules = CompiledRules(ruleset(ALICE, changes))
        for _ in range(2):  # as they are looked up, and as they were kept
            for event, rule_id in (
                ({"type": "M.star"}, "wildcard"),
                ({"type": "m.two", "content": {"body": "both"}}, "two"),
                ({"type": "m.two", "content": {"body": "one"}}, None),
                ({"type": "m.X"}, "twice"),
                ({"type": "m.y"}, None),
                ({"type": "m.is"}, "no type"),
                ({"type": 1, "content": {"type": "m.x"}}, "other key"),
                ({"type": ["m.x"]}, None),
                ({}, None),
            ):
                outcome = rules.evaluate(event, LARGE)
                assert (None if outcome is None else outcome.rule_id) == rule_id, event

    def test_only_so_many_types_are_kept(self) -> None:
        rules = CompiledRules(ruleset(ALICE, {}))
        kept = set()
        for number in range(MAX_TYPES + 1):
            rules.evaluate({"type": f"t{number}"}, LARGE)
            kept.add(len(rules._by_type))
        assert kept == set(range(1, MAX_TYPES + 1))
