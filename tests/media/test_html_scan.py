# SPDX-License-Identifier: Apache-2.0
"""Reading the head of web pages, well-made ones and those made to hurt."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.media import html_scan
from minihs.media.html_scan import decode, scan


def test_title_and_properties_are_found() -> None:
    page = scan(
        """<!DOCTYPE html><html lang="en"><head>
        <!-- <title>not this</title> <meta property="og:title" content="nor this"> -->
        <script>var x = "<title>nor this</title>";</script>
        <style>a > b { content: "<meta name=description content=no>" }</style>
        <TITLE>The &amp; title\n  in two lines</TITLE>
        <meta property="og:title" content="Fish &amp; chips">
        <META NAME=description CONTENT='say "hi"'>
        <meta content="first" property="og:site_name"><meta property="og:site_name" content="second"/>
        <meta property = "og:type" content = website />
        <meta charset="utf-8"><meta property="og:empty" content="">
        </head><body><title>too late</title>"""
    )
    assert page.title == "The & title in two lines"
    assert page.properties == {
        "og:title": "Fish & chips",
        "description": 'say "hi"',
        "og:site_name": "first",
        "og:type": "website",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        "<<<<",
        "</",
        "<!--",
        "<!-- <title>x</title>",
        "<title>",
        "<title>x",
        "<script>",
        "<script><title>x</title>",
        "<meta",
        "<meta ",
        "<meta property",
        "<meta property=",
        "<meta property='og:title",
        '<meta property="og:title" content="x',
        "<meta /><meta>",
        "<metaproperty content=x>",
        "< meta property=og:title content=x>",
    ],
)
def test_pages_without_anything_have_nothing(text: str) -> None:
    page = scan(text)
    assert (page.title, page.properties) == ("", {})


ATTACKS = {
    "nested": "<div>" * 100_000,
    "deep and closed": "<a>" * 50_000 + "</a>" * 50_000,
    "open tags": "<" * 500_000,
    "open metas": "<meta " * 100_000,
    "open values": "<meta content='" * 60_000,
    "attributes": "<meta " + "a=b " * 200_000,
    "endless name": "<meta " + "a" * 1_000_000,
    "blanks": "<meta " + " " * 1_000_000 + ">",
    "slashes": "<meta " + "/" * 1_000_000,
    "equals": "<meta " + "a=" * 500_000,
    "comments": "<!--" * 200_000,
    "almost ended": "<!-- --" * 100_000,
    "scripts": "<script>" * 100_000,
    "titles": "<title>" * 100_000,
    "closers": "<script></scrip" * 60_000,
    "entities": '<meta property="x" content="' + "&" * 1_000_000 + '">',
    "many": "".join(f'<meta property="p{number}" content="v">' for number in range(30_000)),
    "long title": "<title>" + "&amp;" * 200_000 + "</title>",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_page_takes_long(name: str) -> None:
    text = ATTACKS[name][: 1024 * 1024]
    started = time.process_time()
    page = scan(text)
    assert time.process_time() - started < 1.0
    assert len(page.properties) <= html_scan.MAX_PROPERTIES
    assert len(page.title) <= html_scan.MAX_VALUE
    assert all(len(value) <= html_scan.MAX_VALUE for value in page.properties.values())


PIECES = [
    "<",
    ">",
    "<meta",
    "<title>",
    "</title>",
    "<!--",
    "-->",
    "=",
    "'",
    '"',
    "property",
    "content",
    "/",
    "&",
]


@given(st.lists(st.sampled_from(PIECES)))
def test_any_page_can_be_scanned(pieces: list[str]) -> None:
    scan(" ".join(pieces))
    scan("".join(pieces))


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("ä€".encode(), None, "ä€"),
        ("ä€".encode(), "utf-8", "ä€"),
        (b"\xe4", None, "ä"),
        (b"\x80", None, "€"),
        (b"\xe4", "ISO-8859-1", "ä"),
        (b"\xe4\xff", "utf-8", "\ufffd\ufffd"),
        ("日本".encode("shift_jis"), "Shift_JIS", "日本"),
        (b"<meta charset=windows-1251>\xff", None, "<meta charset=windows-1251>я"),
        (b"<meta http-equiv=x content='text/html; charset=koi8-r'>\xc1", None, None),
        (b"plain", "zlib", "plain"),
        (b"plain", "bz2", "plain"),
        (b"plain", "unicode_escape", "plain"),
        (b"plain", "idna", "plain"),
        (b"plain", "no-such-thing\0", "plain"),
        (b"plain", "", "plain"),
    ],
)
def test_text_is_decoded_by_what_is_said_within_reason(
    data: bytes, charset: str | None, text: str | None
) -> None:
    found = decode(data, charset)
    if text is None:
        assert found.endswith("а")
    else:
        assert found == text
