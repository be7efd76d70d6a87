# SPDX-License-Identifier: Apache-2.0
"""JSON in and out: hostile bytes to values, values to bytes (spec: appendices, "Canonical JSON").

canonicaljson defines what the bytes are. orjson makes the same bytes several times faster, but only for
values without floats and without integers outside 64 bits: it writes NaN as null, some floats differently,
and *reads* integers of 2^64 and more as floats without saying so. So every value is looked over once, and
what orjson would get wrong goes through the standard library and canonicaljson instead.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import canonicaljson
import orjson

type JsonObject = dict[str, Any]

MAX_INT = 2**53 - 1
"""Integers beyond ± this have no canonical form (appendices, "Canonical JSON")."""

MAX_DEPTH = 100
"""How deep lists and objects may be nested. The specification has no such limit; every parser has one."""

MAX_WIRE_DEPTH = MAX_DEPTH + 10
"""The same of what comes from the network: an event that is as deep as it may be can be carried in any
transaction or answer."""

MAX_CARRIED_DEPTH = 1_000
"""The same of what carries the events of several servers. One that is deeper than MAX_DEPTH is refused by
itself; the server that passes it on need not have that limit. orjson reads 1,024 levels."""

MAX_VALUES, BYTES_PER_VALUE = 500_000, 12
"""A text may have so many commas and opening brackets outside of strings, and one more for so many bytes.
An empty list takes two bytes of text and sixty of memory; an event has 33 bytes to each of its values."""

# Without these, orjson would quietly serialise types that JSON does not have.
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_SORTED = _PLAIN | orjson.OPT_SORT_KEYS

# The shortest run of digits that can be an integer outside 64 bits: 2^63 has 19.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class BadJson(ValueError):
    """Bytes that are not JSON as this server accepts it, or a value that has no (canonical) JSON form.

    `args[0]` is safe to show to the peer that sent them.
    """


def loads(data: bytes, *, strict: bool = False, max_depth: int = MAX_WIRE_DEPTH) -> Any:
    """Parse bytes from the network. BadJson unless they are UTF-8 JSON nested at most `max_depth` deep.

    Refused as well: a byte order mark, NaN and Infinity, escapes of lone surrogates, and, before it is
    parsed, a long text of tiny values. Of duplicate keys the last one counts. Integers of any size stay
    exact. `strict` adds the rules of `check_strict`.
    """
    return read(data, strict=strict, max_depth=max_depth)[0]


def read(data: bytes, *, strict: bool = False, max_depth: int = MAX_WIRE_DEPTH) -> tuple[Any, bool]:
    """`loads`, and whether there may be floats in it, for an `encode` that follows."""
    _check_density(data)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        # A number too large for a double is the one thing orjson refuses that older rooms may hold.
        if strict or _LONG_NUMBER.search(data) is None:
            raise BadJson(f"not valid JSON: {error.msg}") from error
        return _loads_exactly(data, max_depth), True
    if strict:
        check_strict(value, max_depth=max_depth)
        return value, False
    floats = _survey(value, max_depth)
    if floats and _LONG_NUMBER.search(data) is not None:
        return _loads_exactly(data, max_depth), True
    return value, floats


def loads_checked(data: bytes) -> Any:
    """`loads` without looking the values over: only for what has passed `check_strict`, or must before it is
    used. That refuses all that orjson reads differently, for it makes floats of large integers.
    """
    _check_density(data)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return loads(data, max_depth=MAX_CARRIED_DEPTH)  # the number may be in `unsigned`


def encode(value: Any, *, floats: bool | None = None) -> bytes:
    """Canonical JSON. BadJson for what has none: lone surrogates, NaN, keys or values of foreign types.

    Floats and large integers are written as canonicaljson writes them, since rooms before version 6 and
    signed requests may hold them and every server must hash the same bytes. `floats`: whether there may be
    any, if that is known; else it is looked for.
    """
    if floats is None:
        floats = _survey(value, None)
    if not floats:
        try:
            return orjson.dumps(value, option=_SORTED)
        except TypeError:
            pass  # large integers and more than 254 levels are canonicaljson's, as are real errors
    return _encode_exactly(value)


def encode_checked(value: Any) -> bytes:
    """`encode` without looking for floats: only for values that have passed `check_strict`."""
    try:
        return orjson.dumps(value, option=_SORTED)
    except TypeError as error:
        raise BadJson(f"no JSON form: {error}") from error


def check_strict(value: Any, *, max_depth: int = MAX_DEPTH) -> None:
    """BadJson for floats and integers beyond ±(2^53-1): events since room version 6 must hold none."""
    level: list[Any] = [(value,)]
    for _ in range(max_depth + 1):
        deeper: list[Any] = []
        for container in level:
            for child in container.values() if type(container) is dict else container:
                kind = type(child)
                if kind is str:
                    continue
                if kind is dict or kind is list or kind is tuple:
                    deeper.append(child)
                elif kind is int:
                    if not -MAX_INT <= child <= MAX_INT:
                        raise BadJson("an integer is outside ±(2^53-1)")
                elif kind is float:
                    raise BadJson("floats are not allowed")
                elif kind is not bool and child is not None:
                    raise BadJson(f"{kind.__name__} has no JSON form")
        if not deeper:
            return
        level = deeper
    raise BadJson("nested too deeply")


def check_depth(value: Any, max_depth: int = MAX_DEPTH) -> None:
    """BadJson if lists and objects are nested more than `max_depth` deep."""
    _survey(value, max_depth)


def is_too_deep(value: Any, max_depth: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested more than `max_depth` deep."""
    try:
        _survey(value, max_depth)
    except BadJson:
        return True
    return False


def dumps(value: Any) -> bytes:
    """Plain compact JSON for responses and storage, in the order of the keys as they are."""
    try:
        return orjson.dumps(value, option=_PLAIN)
    except TypeError:
        _check_types(value)
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode()
        except (ValueError, RecursionError) as error:
            raise BadJson("no JSON form") from error


def _check_density(data: bytes) -> None:
    """BadJson if the text would become much larger in memory than it is."""
    if len(data) < 2 * MAX_VALUES:
        return  # even at its worst it is small
    most = MAX_VALUES + len(data) // BYTES_PER_VALUE
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most and has_more(data, most):
        raise BadJson("not valid JSON: too many values")


_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b',[{"')
_STRINGS = re.compile(rb'"[^"]*+"?')


def has_more(data: bytes, most: int) -> bool:
    """Whether JSON has more than `most` commas and opening brackets outside of its strings. (What people
    write may hold any number of them.)"""
    text = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURE)
    count, in_string = 0, False
    for start in range(0, len(text), 65536):
        part = text[start : start + 65536]
        if in_string:
            _, end, part = part.partition(b'"')
            if not end:
                continue
        in_string = part.count(b'"') % 2 == 1
        count += len(_STRINGS.sub(b"", part))
        if count > most:
            return True
    return False


def _survey(value: Any, max_depth: int | None) -> bool:
    """True if there is a float anywhere. Level by level, so that depth costs no stack."""
    found = False
    depth = 0
    level: list[Any] = [(value,)]
    while level:
        if max_depth is not None and depth > max_depth:
            raise BadJson("nested too deeply")
        depth += 1
        deeper: list[Any] = []
        for container in level:
            for child in container.values() if type(container) is dict else container:
                kind = type(child)
                if kind is str:
                    continue
                if kind is dict or kind is list or kind is tuple:
                    deeper.append(child)
                elif kind is float:
                    found = True
        level = deeper
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise BadJson(f"not valid JSON: {name}")


def _loads_exactly(data: bytes, max_depth: int) -> Any:
    """The slow way, for bodies with numbers that only Python's own parser keeps exact."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson("not valid JSON: not UTF-8") from error
    if text.startswith("\ufeff"):
        raise BadJson("not valid JSON: a byte order mark")
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                raise BadJson("nested too deeply")
        elif first in "]}":
            depth -= 1
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        # Python reads lone surrogates and takes 1e400 for infinity; neither can be written again.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except BadJson:
        raise
    except (ValueError, RecursionError) as error:
        raise BadJson("not valid JSON") from error
    return value


def _encode_exactly(value: Any) -> bytes:
    _check_types(value)
    try:
        return canonicaljson.encode_canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise BadJson("no canonical JSON form") from error


def _check_types(value: Any) -> None:
    """The standard library would turn foreign keys into strings; two spellings of one key must not arise."""
    level: list[Any] = [value]
    while level:
        item = level.pop()
        if type(item) is dict:
            if any(type(key) is not str for key in item):
                raise BadJson("a key is not a string")
            level.extend(item.values())
        elif type(item) in (list, tuple):
            level.extend(item)
        elif type(item) not in (str, int, float, bool, type(None)):
            raise BadJson(f"{type(item).__name__} has no JSON form")
