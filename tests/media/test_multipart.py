# SPDX-License-Identifier: Apache-2.0
"""multipart/mixed from strangers, whole and in crumbs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minihs.media import multipart
from minihs.media.multipart import BadMultipart, End, Frame, Parser, Part, boundary_of

type Seen = list[tuple[dict[str, str], bytes]]

NORMAL = (
    b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n"
    b"--b\r\nContent-Type: text/plain\r\nX-Other: 1\r\n\r\nhello\r\nworld\r\n--b--\r\n"
)


def parse(data: bytes, crumb: int = 1 << 20, boundary: str = "b") -> Seen:
    parser = Parser(boundary)
    parts: Seen = []
    ended = False
    for start in range(0, len(data), crumb):
        for event in parser.feed(data[start : start + crumb]):
            assert not ended
            if isinstance(event, Part):
                parts.append((event.headers, b""))
            elif isinstance(event, End):
                ended = True
            else:
                headers, content = parts[-1]
                parts[-1] = (headers, content + event)
    parser.close()
    return parts


@pytest.mark.parametrize("crumb", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("frame", [b"%s", b"a preamble\r\n%sepilogue --b"])
def test_both_parts_are_found_however_the_data_comes(crumb: int, frame: bytes) -> None:
    assert parse(frame % NORMAL, crumb) == [
        ({"content-type": "application/json"}, b"{}"),
        ({"content-type": "text/plain", "x-other": "1"}, b"hello\r\nworld"),
    ]


@pytest.mark.parametrize("crumb", [1, 100])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"--b\r\n\r\nx\r\n--b--", [({}, b"x")]),
        (b"--b\r\n\r\n\r\n--b--", [({}, b"")]),
        (b"--b\r\nA: b\r\n\r\n--b--", [({"a": "b"}, b"")]),
        (b"--b\r\nA: b\r\n\r\n\r\n--b--", [({"a": "b"}, b"")]),
        (b"--b \t\r\nA:b \r\na: c\r\n\r\n\r\n\r\n\r\n--b--", [({"a": "b"}, b"\r\n\r\n")]),
        (b"--b\r\n\r\n\r\n--\r\n--\r\n-b\r\n--b--", [({}, b"\r\n--\r\n--\r\n-b")]),
        (b"--b--", []),
    ],
)
def test_odd_shapes_are_understood(data: bytes, expected: Seen, crumb: int) -> None:
    assert parse(data, crumb) == expected


@pytest.mark.parametrize("crumb", [1, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"--b",
        b"--b\r\n",
        b"--b\r\nA: b\r\n",
        NORMAL[:-10],
        b"--b\r\n\r\nx\r\n--b-",
        b"--bb\r\n\r\nx\r\n--bb--",
        b"--b\r\nno header\r\n\r\nx\r\n--b--",
        b"--b\r\nA : b\r\n\r\nx\r\n--b--",
        b"--b\r\nA: b\n\r\n\r\nx\r\n--b--",
        b"--b\r\nA: b\0\r\n\r\nx\r\n--b--",
        b"--b\n\nx\n--b--",
        b"--b\r\n" + b"A: b\r\n" * (multipart.MAX_PART_HEADER_LINES + 1) + b"\r\nx\r\n--b--",
        b"--b\r\nA: " + b"b" * multipart.MAX_PART_HEADERS + b"\r\n\r\nx\r\n--b--",
        b"--b" + b" " * multipart.MAX_BLANKS + b"\r\n\r\nx\r\n--b--",
        b"x" * (multipart.MAX_PREAMBLE + 1) + NORMAL,
    ],
)
def test_what_is_no_multipart_is_refused(data: bytes, crumb: int) -> None:
    with pytest.raises(BadMultipart):
        parse(data, crumb)


def test_undecided_data_does_not_pile_up() -> None:
    parser = Parser("b")
    list(parser.feed(b"--b\r\n\r\n"))
    for piece in (b"x" * 65536, b"\r\n--" * 16384, b"\r\n-" * 20000):
        for _ in range(50):
            list(parser.feed(piece))
            assert len(parser._buffer) < 16


@given(st.binary(max_size=200), st.integers(1, 50))
def test_what_we_frame_we_can_take_apart(content: bytes, crumb: int) -> None:
    frame = Frame("a-long-boundary", {"Content-Type": "image/png", "Content-Disposition": "inline"})
    boundary = boundary_of(frame.content_type)
    data = frame.before + content + frame.after
    assert len(data) == frame.size + len(content)
    assert parse(data, crumb, boundary) == [
        ({"content-type": "application/json"}, b"{}"),
        ({"content-type": "image/png", "content-disposition": "inline"}, content),
    ]


@given(st.lists(st.sampled_from([b"--b", b"\r\n", b"--", b"A: b", b"x", b"\n", b"{}", b" "]), max_size=30))
def test_anything_is_taken_apart_the_same_way_in_crumbs_and_whole(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    outcomes = []
    for crumb in (1, 2, 5, 1000):
        try:
            outcomes.append(parse(data, crumb))
        except BadMultipart as error:
            outcomes.append([({"error": str(error)}, b"")])
    assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/mixed; boundary=abc", "abc"),
        ('Multipart/Mixed;charset=x; BOUNDARY="a b:c"', "a b:c"),
        ('multipart/mixed; boundary="a\\"b"', 'a"b'),
    ],
)
def test_a_boundary_is_read(header: str, boundary: str) -> None:
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "application/json",
        "multipart/form-data; boundary=x",
        "multipart/mixed",
        "multipart/mixed; boundary=",
        'multipart/mixed; boundary=""',
        'multipart/mixed; boundary="x "',
        'multipart/mixed; boundary="ü"',
        "multipart/mixed; boundary=" + "x" * 201,
    ],
)
def test_an_answer_without_a_boundary_is_refused(header: str | None) -> None:
    with pytest.raises(BadMultipart):
        boundary_of(header)
