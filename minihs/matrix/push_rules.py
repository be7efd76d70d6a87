# SPDX-License-Identifier: Apache-2.0
"""Push rules: the predefined set, and a user's changes to it (client-server-api, "Push Rules").

A user's rules are kept as what differs from the predefined set, so that a new predefined rule of a later
version of the specification reaches everybody. The changes are a JSON object:

    {"rules": {kind: [rule, ...]},                        the user's own, the most important first
     "predefined": {rule_id: {"enabled": ..., "actions": ...}}}

The functions that edit take such an object and return a new one. Evaluation is in `push_conditions.py`.
"""

from __future__ import annotations

from typing import Any

from minihs.matrix.canonical import JsonObject
from minihs.matrix.errors import MatrixError, bad_json, invalid_param, missing_param, not_found

KINDS = ("override", "content", "room", "sender", "underride")
"""In the order in which they are checked."""

MASTER = ".m.rule.master"

MAX_RULES = 1000
MAX_CONDITIONS = 20
MAX_ACTIONS = 20
MAX_TEXT = 1000
"""Characters of a pattern, a key or a rule id: each message in each room is matched against them."""

_HISTORICAL_ACTIONS = ("dont_notify", "coalesce")
"""The specification wants them ignored, as if they weren't there."""

_SOUND = {"set_tweak": "sound", "value": "default"}
_HIGHLIGHT = {"set_tweak": "highlight"}


def _match(key: str, pattern: str) -> JsonObject:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _rule(
    rule_id: str, conditions: list[JsonObject], actions: list[Any], *, enabled: bool = True
) -> JsonObject:
    return {
        "rule_id": rule_id,
        "default": True,
        "enabled": enabled,
        "conditions": conditions,
        "actions": actions,
    }


def predefined(user_id: str) -> dict[str, list[JsonObject]]:
    """The server-default rules of the specification, by kind, the most important first."""
    mentions = "content.m\\.mentions"
    two_members = {"kind": "room_member_count", "is": "2"}
    return {
        "override": [
            _rule(MASTER, [], [], enabled=False),
            _rule(".m.rule.suppress_notices", [_match("content.msgtype", "m.notice")], []),
            _rule(
                ".m.rule.invite_for_me",
                [
                    _match("type", "m.room.member"),
                    _match("content.membership", "invite"),
                    _match("state_key", user_id),
                ],
                ["notify", _SOUND],
            ),
            _rule(".m.rule.member_event", [_match("type", "m.room.member")], []),
            _rule(
                ".m.rule.is_user_mention",
                [{"kind": "event_property_contains", "key": f"{mentions}.user_ids", "value": user_id}],
                ["notify", _SOUND, _HIGHLIGHT],
            ),
            _rule(
                ".m.rule.is_room_mention",
                [
                    {"kind": "event_property_is", "key": f"{mentions}.room", "value": True},
                    {"kind": "sender_notification_permission", "key": "room"},
                ],
                ["notify", _HIGHLIGHT],
            ),
            _rule(
                ".m.rule.tombstone",
                [_match("type", "m.room.tombstone"), _match("state_key", "")],
                ["notify", _HIGHLIGHT],
            ),
            _rule(".m.rule.reaction", [_match("type", "m.reaction")], []),
            _rule(
                ".m.rule.room.server_acl", [_match("type", "m.room.server_acl"), _match("state_key", "")], []
            ),
            _rule(
                ".m.rule.suppress_edits",
                [
                    {
                        "kind": "event_property_is",
                        "key": "content.m\\.relates_to.rel_type",
                        "value": "m.replace",
                    }
                ],
                [],
            ),
        ],
        "content": [],
        "room": [],
        "sender": [],
        "underride": [
            _rule(
                ".m.rule.call",
                [_match("type", "m.call.invite")],
                ["notify", {"set_tweak": "sound", "value": "ring"}],
            ),
            _rule(
                ".m.rule.encrypted_room_one_to_one",
                [two_members, _match("type", "m.room.encrypted")],
                ["notify", _SOUND],
            ),
            _rule(
                ".m.rule.room_one_to_one",
                [two_members, _match("type", "m.room.message")],
                ["notify", _SOUND],
            ),
            _rule(".m.rule.message", [_match("type", "m.room.message")], ["notify"]),
            _rule(".m.rule.encrypted", [_match("type", "m.room.encrypted")], ["notify"]),
        ],
    }


def ruleset(user_id: str, changes: JsonObject) -> dict[str, list[JsonObject]]:
    """All the rules of a user by kind, the most important first: the value of `global`."""
    own = changes.get("rules", {})
    edits = changes.get("predefined", {})
    result: dict[str, list[JsonObject]] = {}
    for kind, rules in predefined(user_id).items():
        edited = [{**rule, **edits.get(rule["rule_id"], {})} for rule in rules]
        first = [rule for rule in edited if rule["rule_id"] == MASTER]
        rest = [rule for rule in edited if rule["rule_id"] != MASTER]
        result[kind] = [*first, *({**rule, "default": False} for rule in own.get(kind, [])), *rest]
    return result


def rule_of(user_id: str, changes: JsonObject, kind: str, rule_id: str) -> JsonObject:
    """One rule; M_NOT_FOUND."""
    if kind not in KINDS:
        raise not_found(f"There is no kind of push rule {kind[:50]!r}.")
    for rule in ruleset(user_id, changes)[kind]:
        if rule["rule_id"] == rule_id:
            return rule
    raise not_found("The push rule was not found.")


def put_rule(
    changes: JsonObject, kind: str, rule_id: str, body: JsonObject, *, before: str | None, after: str | None
) -> JsonObject:
    """Add a rule of the user's own, or change it, and place it next to another one if asked to."""
    if kind not in KINDS:
        raise invalid_param(f"There is no kind of push rule {kind[:50]!r}.")
    check_new_rule_id(rule_id)
    rule = {"rule_id": rule_id, "enabled": True, **checked_rule(kind, body)}
    rules = list(changes.get("rules", {}).get(kind, []))
    index = _index(rules, rule_id)
    if index is not None:
        rule["enabled"] = rules[index]["enabled"]
    neighbour = before if before is not None else after
    if neighbour is not None:
        if neighbour.startswith("."):
            raise invalid_param("A rule can't be placed relative to a predefined rule.")
        if index is not None:
            del rules[index]
        place = _index(rules, neighbour)
        if place is None:
            raise MatrixError(400, "M_UNKNOWN", f"before/after rule not found: {neighbour[:100]}")
        rules.insert(place if before is not None else place + 1, rule)
    elif index is not None:
        rules[index] = rule
    else:
        rules.insert(0, rule)
    if sum(len(each) for each in changes.get("rules", {}).values()) >= MAX_RULES and index is None:
        raise MatrixError(400, "M_LIMIT_EXCEEDED", f"A user can have {MAX_RULES} push rules.")
    return _with_rules(changes, kind, rules)


def delete_rule(changes: JsonObject, kind: str, rule_id: str) -> JsonObject:
    """Remove a rule of the user's own. Predefined ones can only be disabled."""
    if rule_id.startswith("."):
        raise invalid_param("A predefined push rule can't be deleted.")
    rules = list(changes.get("rules", {}).get(kind, []))
    index = _index(rules, rule_id)
    if index is None:
        raise not_found("The push rule was not found.")
    del rules[index]
    return _with_rules(changes, kind, rules)


def edit_rule(user_id: str, changes: JsonObject, kind: str, rule_id: str, **fields: Any) -> JsonObject:
    """Set `enabled` or `actions` of any rule, a predefined one included."""
    rule = rule_of(user_id, changes, kind, rule_id)
    if rule["default"]:
        edits = dict(changes.get("predefined", {}))
        edits[rule_id] = {**edits.get(rule_id, {}), **fields}
        return {**changes, "predefined": edits}
    rules = [
        {**each, **fields} if each["rule_id"] == rule_id else each
        for each in changes.get("rules", {}).get(kind, [])
    ]
    return _with_rules(changes, kind, rules)


def _index(rules: list[JsonObject], rule_id: str) -> int | None:
    return next((i for i, rule in enumerate(rules) if rule["rule_id"] == rule_id), None)


def _with_rules(changes: JsonObject, kind: str, rules: list[JsonObject]) -> JsonObject:
    return {**changes, "rules": {**changes.get("rules", {}), kind: rules}}


def check_new_rule_id(rule_id: str) -> None:
    if not rule_id or len(rule_id) > MAX_TEXT or "\0" in rule_id:
        raise invalid_param("The rule id is empty or too long.")
    if rule_id.startswith("."):
        raise invalid_param("A rule id that starts with a dot is reserved for predefined rules.")
    if "/" in rule_id or "\\" in rule_id:
        raise invalid_param("A rule id can't contain a slash or backslash.")


def checked_rule(kind: str, body: JsonObject) -> JsonObject:
    """What a client may say about a rule of this kind, checked."""
    rule: JsonObject = {"actions": checked_actions(body)}
    if kind in ("override", "underride"):
        rule["conditions"] = checked_conditions(body.get("conditions", []))
    elif kind == "content":
        pattern = body.get("pattern")
        if pattern is None:
            raise missing_param("A content rule needs a pattern.")
        rule["pattern"] = _text(pattern, "pattern")
    return rule


def checked_actions(body: JsonObject) -> list[Any]:
    """The `actions` of a request, without the historical ones."""
    if "actions" not in body:
        raise missing_param("actions are missing.")
    actions = body["actions"]
    if not isinstance(actions, list) or len(actions) > MAX_ACTIONS:
        raise bad_json(f"actions must be a list of at most {MAX_ACTIONS}.")
    result: list[Any] = []
    for action in actions:
        if isinstance(action, str):
            if action not in (*_HISTORICAL_ACTIONS, "notify"):
                raise invalid_param(f"Unknown action {action[:50]!r}.")
            if action == "notify":
                result.append(action)
            continue
        if not isinstance(action, dict) or not isinstance(action.get("set_tweak"), str):
            raise bad_json("Each action must be a string or an object with set_tweak.")
        if not _is_small(action.get("value")) or len(action["set_tweak"]) > MAX_TEXT:
            raise bad_json("The value of a tweak must be a short string, a number or a boolean.")
        result.append({key: action[key] for key in ("set_tweak", "value") if key in action})
    return result


def checked_conditions(conditions: object) -> list[JsonObject]:
    if not isinstance(conditions, list) or len(conditions) > MAX_CONDITIONS:
        raise bad_json(f"conditions must be a list of at most {MAX_CONDITIONS}.")
    for condition in conditions:
        if not isinstance(condition, dict) or not isinstance(condition.get("kind"), str):
            raise bad_json("Each condition must be an object with a kind.")
        if len(condition) > 10:
            raise bad_json("A condition has too many fields.")
        for name, value in condition.items():
            if name in ("key", "pattern", "is"):
                _text(value, name)
            elif not _is_small(value) or len(name) > MAX_TEXT:
                raise bad_json("A field of a condition is too large, or neither text, number nor boolean.")
    return conditions


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise bad_json(f"{name} must be text of at most {MAX_TEXT} characters.")
    return value


def _is_small(value: object) -> bool:
    return (
        value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, str) and len(value) <= MAX_TEXT)
    )
