# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.matrix.globs import Glob, glob_matches

letters = st.text(alphabet="ab\n", max_size=12)
patterns = st.text(alphabet="ab*?\n", max_size=10)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", ""),
        ("*", ""),
        ("**", ""),
        ("*", "anything"),
        ("abc", "abc"),
        ("a?c", "abc"),
        ("?", "é"),
        ("?", "\U0001f600"),
        ("a*c", "ac"),
        ("a*c", "abbbc"),
        ("*c", "abc"),
        ("a*", "abc"),
        ("*b*", "abc"),
        ("*?*", "a"),
        ("a*b*c", "axbxc"),
        ("a*b*c", "abcbc"),
        ("*ab", "aab"),
        ("*a?b*", "xxaybzz"),
        ("*a?b*a?b", "a1ba2b"),
        ("*.example.org", "a.example.org"),
        ("[a-z]", "[a-z]"),
        ("\\*", "\\x"),
        ("a.c", "a.c"),
    ],
)
def test_matches(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "a"),
        ("a", ""),
        ("?", ""),
        ("?", "ab"),
        ("abc", "ABC"),
        ("a.c", "abc"),
        ("a*a", "a"),
        ("ab*ba", "aba"),
        ("*?", ""),
        ("*b", "ba"),
        ("b*", "ab"),
        ("a*b*c", "acb"),
        ("*a?b*", "ab"),
        ("?a*", "ab"),
        ("*.example.org", "example.org"),
        ("[a-z]", "a"),
    ],
)
def test_does_not_match(pattern: str, text: str) -> None:
    assert not glob_matches(pattern, text)


@given(patterns, letters)
def test_globs_mean_the_same_as_the_regular_expression_would(pattern: str, text: str) -> None:
    as_regex = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    assert glob_matches(pattern, text) is (re.fullmatch(as_regex, text, re.DOTALL) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 100 + "b",
        "*a?" * 100 + "b",
        "*" * 10_000 + "b",
        "?" * 5_000 + "*" + "?" * 5_000,
        "*?a" * 60 + "*c*",
    ],
)
def test_hostile_patterns_take_no_time(pattern: str) -> None:
    started = time.process_time()
    assert not glob_matches(pattern, "a" * 9_000)
    assert time.process_time() - started < 0.5


def test_a_glob_can_be_kept() -> None:
    glob = Glob("a*")
    assert glob.pattern == "a*"
    assert [glob.matches(text) for text in ("a", "ab", "b")] == [True, True, False]
