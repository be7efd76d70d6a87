# SPDX-License-Identifier: Apache-2.0
"""Types and names that strangers give to files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.media import names


@pytest.mark.parametrize("text", ["a", "A-Z_09", "x" * 255])
def test_media_ids_are_of_few_characters(text: str) -> None:
    assert names.is_media_id(text)


@pytest.mark.parametrize(
    "text", ["", "..", "a/b", "a.b", "a%2fb", "a\0", "a\n", "ä", "x" * 256, "a b", "a\\b"]
)
def test_what_could_be_a_path_is_no_media_id(text: str) -> None:
    assert not names.is_media_id(text)


@pytest.mark.parametrize(
    "text", ["image/png", "text/plain; charset=utf-8", 'a/b;c="d e;f"', "a/b ; c=d", "x-y.z+w/a_b", "a/b;"]
)
def test_types_are_kept_as_they_are(text: str) -> None:
    assert names.content_type(f" {text}\t") == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "png",
        "image/",
        "/png",
        "image/png\r\nX: y",
        "image/png; a",
        'image/png; a="b',
        "image/png, text/html",
        "a b/c",
        "ü/ü",
        "a/" + "b" * 300,
        "a/b" + "; " * 125 + "ü",
        "a/b;" + " ;" * 120 + "ü",
    ],
)
def test_what_is_no_type_is_bytes(text: str | None) -> None:
    assert names.content_type(text) == "application/octet-stream"


def test_text_is_served_as_utf8_unless_it_says_otherwise() -> None:
    assert names.served_type("text/plain") == "text/plain; charset=utf-8"
    assert names.served_type("TEXT/csv; header=present") == "text/csv; charset=utf-8"
    assert names.served_type("text/plain; charset=latin-1") == "text/plain; charset=latin-1"
    assert names.served_type("image/png") == "image/png"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=a.txt", "a.txt"),
        ('inline; FILENAME = "a b.txt"', "a b.txt"),
        ('inline; filename="a\\"b"', 'a"b'),
        ("inline; filename*=UTF-8''%e2%82%ac; filename=euro", "€"),
        ("inline; filename=euro; filename*=utf-8'en'%e2%82%ac", "€"),
        ("inline; filename*=iso-8859-1''%e4", "ä"),
        ('inline; filename="\xc3\xa4.txt"', "ä.txt"),
        ('inline; filename="\xe4.txt"', "ä.txt"),
        ("inline; filename*=utf-7''x; filename=y", "y"),
        ("inline; filename*=utf-8''%ff", None),
        ("inline; filename*=utf-8''", None),
        ("inline; filename=", None),
        ('inline; filename=""', None),
        ("inline", None),
        (None, None),
        ("inline; filename=" + "a" * 1025, None),
        ('inline; filename="a\0\x07b"', "ab"),
        ("inline" + "; " * 500 + "filename=x", "x"),
        ("x" * 100_000, None),
    ],
)
def test_file_names_are_read_from_headers(header: str | None, name: str | None) -> None:
    assert names.filename_in(header) == name


@given(st.text(max_size=100))
def test_a_name_survives_the_way_through_a_header(text: str) -> None:
    name = names.filename(text)
    header = names.disposition_for("image/png", name)
    assert header.isascii()
    assert header.isprintable()
    assert names.filename_in(header) == name


@given(st.text(max_size=60))
def test_any_header_can_be_looked_at(text: str) -> None:
    names.filename_in(text)
    names.filename_in(f"inline; filename={text}")
    kept = names.content_type(text)
    assert kept.isascii()
    assert "\n" not in kept
    assert "\r" not in kept
