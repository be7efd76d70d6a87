# SPDX-License-Identifier: Apache-2.0
"""Which push rule matches an event (client-server-api, "Conditions").

Rules are compiled once per user; matching is linear in the length of the text, whatever the pattern, since
both come from strangers. Unknown or malformed conditions never match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from minihs.matrix.canonical import JsonObject
from minihs.matrix.globs import Glob
from minihs.matrix.push_rules import KINDS

_MISSING = object()

_MEMBER_COUNT = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,15})", re.ASCII)

DEFAULT_NOTIFICATION_LEVEL = 50


class PushContext(NamedTuple):
    """What some conditions need to know beside the event."""

    member_count: int
    """Joined members of the room."""
    sender_power: float
    """Power level of the event's sender; infinite for the creators of version 12."""
    notification_levels: Mapping[str, int] = MappingProxyType({})
    """`notifications` of m.room.power_levels."""
    display_name: str | None = None
    """The user's name in this room, for the deprecated contains_display_name."""


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What the rule that matched wants."""

    rule_id: str
    notify: bool
    highlight: bool
    tweaks: JsonObject
    """For the push gateway, `highlight` included if it was set."""


type Condition = Callable[[JsonObject, PushContext], bool]
type _Rule = tuple[tuple[Condition, ...], PushOutcome]

MAX_TYPES = 32
"""Types of events for which it is kept which rules concern them."""


class CompiledRules:
    """A user's rules, ready to be matched: made from the `global` ruleset. May be used by several threads."""

    __slots__ = ("_by_type", "_rules")

    def __init__(self, ruleset: Mapping[str, Sequence[JsonObject]]) -> None:
        self._rules: list[tuple[str | None, _Rule]] = []
        """With the only type of event that a rule can match, in lower case; None: it does not say."""
        self._by_type: dict[str | None, list[_Rule]] = {}
        for kind in KINDS:
            for rule in ruleset[kind]:
                if rule["enabled"]:
                    written = conditions_of(kind, rule)
                    wanted = next(filter(None, map(_only_type, written)), None)
                    rest = [each for each in written if wanted is None or _only_type(each) != wanted]
                    conditions = tuple(map(compile_condition, rest))
                    self._rules.append((wanted, (conditions, outcome_of(rule))))

    def evaluate(self, event: JsonObject, context: PushContext) -> PushOutcome | None:
        """The outcome of the first rule that matches the event (in its client format); None: no rule does.

        The user's own events never notify: the caller leaves them out.
        """
        for conditions, outcome in self._rules_for(event.get("type")):
            for condition in conditions:
                if not condition(event, context):
                    break
            else:
                return outcome
        return None

    def _rules_for(self, type: object) -> list[_Rule]:
        """Those that an event of that type can match. Most rules are for one type, and most events of few."""
        key = type.lower() if isinstance(type, str) else None
        found = self._by_type.get(key)
        if found is None:
            found = [rule for wanted, rule in self._rules if wanted is None or wanted == key]
            if len(self._by_type) >= MAX_TYPES:
                self._by_type = {}
            self._by_type[key] = found
        return found


def _only_type(condition: JsonObject) -> str | None:
    """The type that the condition wants, in lower case, if it is about that and without wildcards."""
    pattern = condition.get("pattern")
    if condition.get("kind") == "event_match" and condition.get("key") == "type" and isinstance(pattern, str):
        return None if "*" in pattern or "?" in pattern else pattern.lower()
    return None


def conditions_of(kind: str, rule: JsonObject) -> list[JsonObject]:
    """The conditions of a rule, written out where its kind implies them."""
    if kind == "content":
        return [{"kind": "event_match", "key": "content.body", "pattern": rule["pattern"]}]
    if kind == "room":
        return [{"kind": "event_property_is", "key": "room_id", "value": rule["rule_id"]}]
    if kind == "sender":
        return [{"kind": "event_property_is", "key": "sender", "value": rule["rule_id"]}]
    conditions: list[JsonObject] = rule["conditions"]
    return conditions


def outcome_of(rule: JsonObject) -> PushOutcome:
    tweaks: JsonObject = {}
    for action in rule["actions"]:
        if isinstance(action, dict):
            name = action["set_tweak"]
            # "If a highlight tweak is given with no value, its value is defined to be true."
            tweaks[name] = action.get("value", True) if name == "highlight" else action.get("value")
    return PushOutcome(
        rule_id=rule["rule_id"],
        notify="notify" in rule["actions"],
        highlight=tweaks.get("highlight") is True,
        tweaks=tweaks,
    )


def never(event: JsonObject, context: PushContext) -> bool:
    return False


def compile_condition(condition: JsonObject) -> Condition:
    maker = _MAKERS.get(condition.get("kind", ""))
    return never if maker is None else maker(condition)


def _event_match(condition: JsonObject) -> Condition:
    key, pattern = condition.get("key"), condition.get("pattern")
    if not isinstance(key, str) or not isinstance(pattern, str):
        return never
    path = split_path(key)
    matcher = word_matcher(pattern) if key == "content.body" else Glob(pattern.lower()).matches

    def matches(event: JsonObject, context: PushContext) -> bool:
        value = lookup(event, path)
        return isinstance(value, str) and matcher(value.lower())

    return matches


def _event_property_is(condition: JsonObject) -> Condition:
    key, wanted = condition.get("key"), condition.get("value", _MISSING)
    if not isinstance(key, str) or not is_scalar(wanted):
        return never
    path = split_path(key)
    return lambda event, context: is_same(lookup(event, path), wanted)


def _event_property_contains(condition: JsonObject) -> Condition:
    key, wanted = condition.get("key"), condition.get("value", _MISSING)
    if not isinstance(key, str) or not is_scalar(wanted):
        return never
    path = split_path(key)

    def matches(event: JsonObject, context: PushContext) -> bool:
        values = lookup(event, path)
        return isinstance(values, list) and any(is_same(value, wanted) for value in values)

    return matches


def _contains_display_name(condition: JsonObject) -> Condition:
    def matches(event: JsonObject, context: PushContext) -> bool:
        body = lookup(event, ("content", "body"))
        if not context.display_name or not isinstance(body, str):
            return False
        name = re.compile(_NOT_AFTER_WORD + re.escape(context.display_name.lower()) + _NOT_BEFORE_WORD)
        return name.search(body.lower()) is not None

    return matches


def _room_member_count(condition: JsonObject) -> Condition:
    limit = condition.get("is")
    parts = _MEMBER_COUNT.fullmatch(limit) if isinstance(limit, str) else None
    if parts is None:
        return never
    number = int(parts[2])
    match parts[1]:
        case "<":
            return lambda event, context: context.member_count < number
        case ">":
            return lambda event, context: context.member_count > number
        case "<=":
            return lambda event, context: context.member_count <= number
        case ">=":
            return lambda event, context: context.member_count >= number
        case _:
            return lambda event, context: context.member_count == number


def _sender_notification_permission(condition: JsonObject) -> Condition:
    key = condition.get("key")
    if not isinstance(key, str):
        return never

    def matches(event: JsonObject, context: PushContext) -> bool:
        return context.sender_power >= context.notification_levels.get(key, DEFAULT_NOTIFICATION_LEVEL)

    return matches


_MAKERS: dict[str, Callable[[JsonObject], Condition]] = {
    "event_match": _event_match,
    "event_property_is": _event_property_is,
    "event_property_contains": _event_property_contains,
    "contains_display_name": _contains_display_name,
    "room_member_count": _room_member_count,
    "sender_notification_permission": _sender_notification_permission,
}


def split_path(path: str) -> tuple[str, ...]:
    """A dot-separated property path; `\\.` and `\\\\` are a dot and a backslash within a name."""
    names: list[str] = []
    name = ""
    i = 0
    while i < len(path):
        if path[i] == "\\" and path[i + 1 : i + 2] in (".", "\\"):
            i += 1
            name += path[i]
        elif path[i] == ".":
            names.append(name)
            name = ""
        else:
            name += path[i]
        i += 1
    return (*names, name)


def lookup(event: JsonObject, path: tuple[str, ...]) -> Any:
    value: Any = event
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = value[name]
    return value


def is_scalar(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return value is None or isinstance(value, str | bool)


def is_same(value: object, wanted: object) -> bool:
    """Equal and of the same JSON type: `1` is neither `true` nor `1.0`."""
    return type(value) is type(wanted) and value == wanted


# A glob in the body is cut at its stars. Taking for each piece the earliest place that fits leaves the most
# room for the rest, so there is no going back; `?` makes a piece a regular expression without repetition.


def word_matcher(pattern: str) -> Callable[[str], bool]:
    """Does the glob match some part of the (lower-case) text that starts and ends at a word boundary?"""
    return _words_matcher(pattern.lower().split("*"))


_NOT_AFTER_WORD = r"(?<![A-Za-z0-9_])"
_NOT_BEFORE_WORD = r"(?![A-Za-z0-9_])"


def _words_matcher(literals: list[str]) -> Callable[[str], bool]:
    last = len(literals) - 1
    parts = [
        _part(literal, _NOT_AFTER_WORD if i == 0 else "", _NOT_BEFORE_WORD if i == last else "")
        for i, literal in enumerate(literals)
    ]

    def matches(text: str) -> bool:
        end = 0
        for part in parts:
            found = part.search(text, end)
            if found is None:
                return False
            end = found.end()
        return True

    return matches


def _part(literal: str, before: str = "", after: str = "") -> re.Pattern[str]:
    return re.compile(before + "".join("." if c == "?" else re.escape(c) for c in literal) + after, re.DOTALL)
