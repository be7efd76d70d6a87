# SPDX-License-Identifier: Apache-2.0
"""Which state of a room a client wants to have (MSC4186, "RequiredStateRequest").

Two forms are in use for the same: pairs like `["m.room.member", "$LAZY"]` on the unstable path, objects with
`include`, `exclude` and `lazy_members` in the text of the MSC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from minihs.matrix.errors import bad_json, invalid_param

MEMBER = "m.room.member"

MAX_ELEMENTS = 200
"""Of one wish; clients send some twenty."""

type Element = tuple[str | None, str | None]
"""(type, state_key); None matches anything."""


@dataclass(frozen=True)
class StateWish:
    include: frozenset[Element]
    exclude: frozenset[Element] = frozenset()
    lazy: bool = False
    """Members only as they matter: then no wildcard stands for a member, only an element that names one."""

    def wants(self, type: str, state_key: str) -> bool:
        """Apart from what is sent because of `lazy`."""
        return self._in(self.include, type, state_key, by_name=self.lazy) and not self._in(
            self.exclude, type, state_key, by_name=False
        )

    @staticmethod
    def _in(elements: frozenset[Element], type: str, state_key: str, *, by_name: bool) -> bool:
        if (type, state_key) in elements or (None, state_key) in elements:
            return True
        if by_name and type == MEMBER:
            return False
        return (type, None) in elements or (None, None) in elements

    @property
    def names_members(self) -> bool:
        """May it want one?"""
        return any(type in (MEMBER, None) for type, _ in self.include)

    @property
    def exact(self) -> Iterator[tuple[str, str]]:
        """Elements without a wildcard."""
        for type, state_key in self.include:
            if type is not None and state_key is not None:
                yield type, state_key

    @property
    def whole_types(self) -> set[str] | None:
        """Types of which every key is wanted; None: not only of single types, the whole state has to be
        looked through."""
        types: set[str] = set()
        for type, state_key in self.include:
            if type is None or (state_key is None and type == MEMBER and not self.lazy):
                return None
            if state_key is None and type != MEMBER:
                types.add(type)
        return types

    @cached_property
    def key(self) -> int:
        """A number that stands for the wish in what is remembered of a room."""
        parts = [sorted(map(json.dumps, elements)) for elements in (self.include, self.exclude)]
        text = json.dumps([*parts, self.lazy])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())


NOTHING = StateWish(frozenset())


def parse(value: Any, user_id: str) -> StateWish:
    """Either form. M_BAD_JSON, M_INVALID_PARAM."""
    if value is None:
        return NOTHING
    if isinstance(value, list):
        return _from_pairs(value, user_id)
    if not isinstance(value, dict):
        raise bad_json("required_state must be an array or an object.")
    lazy = value.get("lazy_members", False)
    if type(lazy) is not bool:
        raise bad_json("lazy_members must be true or false.")
    return StateWish(_elements(value, "include"), _elements(value, "exclude"), lazy)


def _from_pairs(pairs: list[Any], user_id: str) -> StateWish:
    if len(pairs) > MAX_ELEMENTS:
        raise invalid_param(f"required_state must not have more than {MAX_ELEMENTS} elements.")
    include: set[Element] = set()
    lazy = False
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise bad_json("An element of required_state must be an array of two strings.")
        type, state_key = pair
        if state_key == "$LAZY":
            if type != MEMBER:
                raise invalid_param("$LAZY is only for m.room.member.")
            lazy = True
            continue
        if state_key == "$ME":
            state_key = user_id
        include.add((None if type == "*" else type, None if state_key == "*" else state_key))
    return StateWish(frozenset(include), lazy=lazy)


def _elements(value: dict[str, Any], name: str) -> frozenset[Element]:
    elements = value.get(name, [])
    if not isinstance(elements, list):
        raise bad_json(f"{name} must be an array.")
    if len(elements) > MAX_ELEMENTS:
        raise invalid_param(f"{name} must not have more than {MAX_ELEMENTS} elements.")
    found: set[Element] = set()
    for element in elements:
        if not isinstance(element, dict):
            raise bad_json(f"An element of {name} must be an object.")
        type, state_key = element.get("type"), element.get("state_key")
        if not all(part is None or isinstance(part, str) for part in (type, state_key)):
            raise bad_json(f"type and state_key in {name} must be strings.")
        found.add((type, state_key))
    return frozenset(found)
