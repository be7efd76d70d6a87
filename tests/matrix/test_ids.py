# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.matrix import ids

NOT_STRINGS = [None, 5, True, 1.5, b"@a:b", ["@a:b"], {"@a:b": 1}]
HASH = "Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        # the examples of the appendices, "Server Name"
        ("matrix.org", "matrix.org", None),
        ("matrix.org:8888", "matrix.org", 8888),
        ("1.2.3.4", "1.2.3.4", None),
        ("1.2.3.4:1234", "1.2.3.4", 1234),
        ("[1234:5678::abcd]", "[1234:5678::abcd]", None),
        ("[1234:5678::abcd]:5678", "[1234:5678::abcd]", 5678),
        # and others
        ("localhost", "localhost", None),
        ("EXAMPLE.org", "EXAMPLE.org", None),
        ("a-b.c-d", "a-b.c-d", None),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ("[::1]", "[::1]", None),
        ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", None),
        ("1.2.3.example", "1.2.3.example", None),
        ("1.2.3", "1.2.3", None),
        ("a:0", "a", 0),
        ("a:00080", "a", 80),
        ("a:65535", "a", 65535),
        ("x" * 255, "x" * 255, None),
    ],
)
def test_valid_server_names(text: str, host: str, port: int | None) -> None:
    assert ids.parse_server_name(text) == ids.ServerName(host, port)
    assert ids.is_server_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a:",
        "a:b",
        "a:-1",
        "a:+1",
        "a: 1",
        "a:65536",
        "a:100000",
        "a:080000",
        "a:1:2",
        "a:١",
        "a_b",
        "a b",
        "bücher.example",
        "a/b",
        "a%2fb",
        "a\x00b",
        "a\n",
        "user@a",
        "..",
        ".a",
        "a.",
        "a..b",
        "../etc/passwd",
        "999.1.1.1",
        "1.2.3.256",
        "1.2.3.4.",
        "01.2.3.4",
        "[]",
        "[:]",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[1.2.3.4]",
        "[::g]",
        "[::1::2]",
        "[example.org]",
        "x" * 256,
        "x" * 252 + ":8448",
    ],
)
def test_invalid_server_names(text: str) -> None:
    assert ids.parse_server_name(text) is None
    assert not ids.is_server_name(text)


@given(st.text(max_size=300))
def test_a_server_name_never_holds_anything_but_its_few_characters(text: str) -> None:
    parsed = ids.parse_server_name(text)
    if parsed is not None:
        assert text.isascii()
        assert not set(text) & set("/\\_%@ \x00?#")
        assert text == parsed.host or text.startswith(parsed.host + ":")


@pytest.mark.parametrize(
    ("host", "literal"),
    [
        ("1.2.3.4", True),
        ("255.255.255.255", True),
        ("[::1]", True),
        ("[2001:db8::1]", True),
        ("::1", False),
        ("[1.2.3.4]", False),
        ("1.2.3", False),
        ("1.2.3.4.5", False),
        ("256.1.1.1", False),
        ("example.org", False),
        ("", False),
        ("[]", False),
    ],
)
def test_ip_literals(host: str, literal: bool) -> None:
    assert ids.is_ip_literal(host) is literal


@pytest.mark.parametrize(
    "user_id",
    [
        "@a:b",
        "@user:matrix.org:8448",
        "@user:[::1]",
        "@a._=-/+9:b",
        # historical ones, which must be accepted in events
        "@User Name:b",
        "@日本:b",
        "@a\x01\n:b",
        "@!#:b",
        "@:b",
        "@" + "x" * 252 + ":b",
        "@" + "é" * 126 + ":b",
    ],
)
def test_user_ids(user_id: str) -> None:
    assert ids.is_user_id(user_id)


@pytest.mark.parametrize(
    "thing",
    [
        "",
        "@",
        "@a",
        "@a:",
        "a:b",
        "!a:b",
        "@a:b:c",
        "@a:b c",
        "@a\x00:b",
        "@\ud800:b",
        "@a:b_c",
        " @a:b",
        "@" + "x" * 253 + ":b",
        "@" + "é" * 127 + ":b",
        *NOT_STRINGS,
    ],
)
def test_what_is_not_a_user_id(thing: object) -> None:
    assert not ids.is_user_id(thing)


def test_new_users_have_a_narrower_grammar() -> None:
    assert ids.is_local_user_part("abc019._=/+-")
    for thing in ("", "A", "a b", "a:b", "é", "a\n", "@a", "a!", *NOT_STRINGS):
        assert not ids.is_local_user_part(thing)


def test_room_ids_come_in_two_forms() -> None:
    for room_id in ("!abc:hs.example", "!:hs.example", "!日本:hs.example", "!a:1.2.3.4:99"):
        assert ids.is_room_id(room_id)
        assert ids.is_domain_room_id(room_id)
        assert not ids.is_hash_room_id(room_id)
    assert ids.is_room_id("!" + HASH)
    assert ids.is_hash_room_id("!" + HASH)
    assert not ids.is_domain_room_id("!" + HASH)


@pytest.mark.parametrize(
    "thing",
    [
        "",
        "!",
        "!abc",
        "#abc:hs",
        "!a\x00b:hs",
        "!abc:",
        "!abc:h s",
        "!" + "x" * 252 + ":hs",
        "!" + HASH + "x",
        "!" + HASH[:-1],
        "!" + HASH[:-1] + "+",
        "!" + HASH[:-1] + "/",
        "!" + HASH + "\n",
        "$" + HASH,
        *NOT_STRINGS,
    ],
)
def test_what_is_not_a_room_id(thing: object) -> None:
    assert not ids.is_room_id(thing)
    assert not ids.is_domain_room_id(thing)
    assert not ids.is_hash_room_id(thing)


def test_room_aliases() -> None:
    for alias in ("#room:hs", "#日本 !:hs:1", "#:hs"):
        assert ids.is_room_alias(alias)
    for thing in ("", "#", "#room", "!room:hs", "#a\x00:hs", "#a:b c", "#" + "x" * 252 + ":hs", *NOT_STRINGS):
        assert not ids.is_room_alias(thing)


def test_event_ids_of_any_version() -> None:
    for event_id in ("$abc:hs", "$" + HASH, "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", "$" + "x" * 254):
        assert ids.is_event_id(event_id)
    for thing in ("", "$", "abc", "!a:hs", "$" + "x" * 255, "$" + "é" * 128, "$\ud800", *NOT_STRINGS):
        assert not ids.is_event_id(thing)


def test_event_ids_of_the_first_versions_have_a_server() -> None:
    assert ids.is_domain_event_id("$abc:hs")
    for thing in ("$abc", "$abc:", "$abc:h s", "abc:hs", *NOT_STRINGS):
        assert not ids.is_domain_event_id(thing)


def test_the_parts_of_an_identifier() -> None:
    assert ids.domain_of("@a:b:8448") == "b:8448"
    assert ids.domain_of("@a:[::1]:8448") == "[::1]:8448"
    assert ids.localpart_of("@a:b:8448") == "a"
    assert ids.localpart_of("@:b") == ""
    for function in (ids.domain_of, ids.localpart_of):
        with pytest.raises(ValueError, match="domain"):
            function("$hash")


def test_sizes_are_bytes_not_characters() -> None:
    assert ids.fits("x" * 255)
    assert not ids.fits("x" * 256)
    assert ids.fits("é" * 127)
    assert not ids.fits("é" * 128)
    assert not ids.fits("é" * 256)
    assert not ids.fits("\ud800")
    assert ids.fits("abc", 3)
    assert not ids.fits("abc", 2)


def test_what_is_too_long_for_an_identifier_is_not_remembered() -> None:
    assert ids.is_user_id("@known:example.org")
    before = ids._is_domain_id.cache_info().currsize
    long = "a" * (ids.MAX_LENGTH - len("@:example.org"))
    assert ids.is_user_id(f"@{long}:example.org")
    assert ids._is_domain_id.cache_info().currsize == min(before + 1, ids.IDS_REMEMBERED)
    assert not ids.is_user_id(f"@{long}a:example.org")
    assert not ids.is_user_id("@" + "a" * 1_000_000)
    assert ids._is_domain_id.cache_info().currsize == min(before + 1, ids.IDS_REMEMBERED)


def test_an_identifier_that_is_remembered_is_one_of_its_kind_only() -> None:
    for text, kinds in (("@a:b.test", (True, False)), ("!a:b.test", (False, True))):
        assert (ids.is_user_id(text), ids.is_domain_room_id(text)) == kinds
        assert (ids.is_user_id(text), ids.is_domain_room_id(text)) == kinds
