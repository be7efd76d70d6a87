# SPDX-License-Identifier: Apache-2.0
"""Reading fields out of JSON that a client sent, with their types and sizes checked.

A missing field is M_MISSING_PARAM, one of the wrong type M_BAD_JSON, one of a wrong value M_INVALID_PARAM
(client-server-api, "Common error codes"). `true` is not a number, though Python would have it so.
"""

from __future__ import annotations

from typing import overload

from minihs.matrix.canonical import MAX_INT, JsonObject
from minihs.matrix.errors import bad_json, invalid_param, missing_param
from minihs.matrix.ids import MAX_LENGTH, fits


def required_text(body: JsonObject, name: str, *, limit: int = MAX_LENGTH) -> str:
    """A string of at most `limit` bytes."""
    value = optional_text(body, name, limit=limit)
    if value is None:
        raise missing_param(f"{name} is missing.")
    return value


def optional_text(body: JsonObject, name: str, *, limit: int = MAX_LENGTH) -> str | None:
    """The same; None if the field is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise bad_json(f"{name} must be a string.")
    if not fits(value, limit):
        raise invalid_param(f"{name} is longer than {limit} bytes.")
    return value


def identifier(value: str, name: str, *, limit: int = MAX_LENGTH) -> str:
    """An opaque id that a client chose: not empty, not too long, no NUL."""
    if not value or "\0" in value or not fits(value, limit):
        raise invalid_param(f"{name} must have 1 to {limit} bytes, none of them NUL.")
    return value


def flag(body: JsonObject, name: str, default: bool = False) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise bad_json(f"{name} must be true or false.")
    return value


@overload
def number(body: JsonObject, name: str, default: int) -> int: ...
@overload
def number(body: JsonObject, name: str, default: None = None) -> int | None: ...
def number(body: JsonObject, name: str, default: int | None = None) -> int | None:
    """A whole number within ±(2^53-1)."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or abs(value) > MAX_INT:
        raise bad_json(f"{name} must be a whole number.")
    return value


def required_object(body: JsonObject, name: str) -> JsonObject:
    value = optional_object(body, name)
    if value is None:
        raise missing_param(f"{name} is missing.")
    return value


def optional_object(body: JsonObject, name: str) -> JsonObject | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise bad_json(f"{name} must be an object.")
    return value


def texts(value: object, name: str) -> list[str]:
    """A list of strings of ordinary length."""
    if not isinstance(value, list) or not all(isinstance(each, str) and fits(each) for each in value):
        raise bad_json(f"{name} must be a list of strings of at most {MAX_LENGTH} bytes.")
    return value
