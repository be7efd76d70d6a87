# SPDX-License-Identifier: Apache-2.0
"""Fields of hostile JSON: types and sizes."""

from __future__ import annotations

from typing import Any

import pytest

from minihs.matrix import fields
from minihs.matrix.errors import MatrixError

WRONG: dict[str, list[Any]] = {
    "optional_text": [1, True, [], {}],
    "required_text": [1, True, [], {}],
    "flag": ["true", 1, 0, [], None],
    "number": ["1", True, 1.0, [], 2**53, -(2**53)],
    "optional_object": [1, "x", [], True],
    "required_object": [1, "x", [], True],
}


@pytest.mark.parametrize(("function", "value"), [(f, v) for f, values in WRONG.items() for v in values])
def test_wrong_types_are_bad_json(function: str, value: Any) -> None:
    with pytest.raises(MatrixError) as refused:
        getattr(fields, function)({"x": value}, "x")
    assert (refused.value.status, refused.value.errcode) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("function", ["required_text", "required_object"])
@pytest.mark.parametrize("body", [{}, {"x": None}])
def test_missing_fields_are_named(function: str, body: dict[str, Any]) -> None:
    with pytest.raises(MatrixError) as refused:
        getattr(fields, function)(body, "x")
    assert refused.value.errcode == "M_MISSING_PARAM"
    assert "x" in refused.value.message


def test_right_values_come_back() -> None:
    body = {"text": "ä", "flag": True, "number": -(2**53) + 1, "object": {}}
    assert fields.required_text(body, "text", limit=2) == "ä"
    assert fields.flag(body, "flag") is True
    assert fields.number(body, "number") == -(2**53) + 1
    assert fields.required_object(body, "object") == {}
    assert fields.optional_text(body, "none") is None
    assert fields.number(body, "none", 7) == 7
    assert fields.flag(body, "none", default=True) is True
    assert fields.texts(["a"], "x") == ["a"]


def test_text_is_measured_in_bytes() -> None:
    with pytest.raises(MatrixError) as refused:
        fields.required_text({"x": "ä"}, "x", limit=1)
    assert refused.value.errcode == "M_INVALID_PARAM"


@pytest.mark.parametrize("value", ["", "a\0", "x" * 256, "ä" * 128])
def test_identifiers_have_something_in_them_and_an_end(value: str) -> None:
    with pytest.raises(MatrixError) as refused:
        fields.identifier(value, "x")
    assert refused.value.errcode == "M_INVALID_PARAM"


@pytest.mark.parametrize("value", [None, "x", [1], {"a": 1}, ["x" * 300]])
def test_lists_of_strings_hold_nothing_else(value: Any) -> None:
    with pytest.raises(MatrixError) as refused:
        fields.texts(value, "x")
    assert refused.value.errcode == "M_BAD_JSON"
