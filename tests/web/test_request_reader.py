# SPDX-License-Identifier: Apache-2.0
"""The reader of requests beside h11, which read them before: what ours takes, h11 takes as the same.

The other way round it is stricter; `H11_TAKES` has what.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import h11
import pytest
from httptools import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from minihs.web.request_reader import MAX_HEADER_BYTES, MAX_HEADERS, BadRequest, Fields, RequestReader

from .packets import REFUSED, TAKEN, chunked, get, post

H11_TAKES = {
    "length, then chunked": "chunked (it was refused behind it)",
    "chunked, then length": "the same",
    "one length twice": "RFC 9112, 6.3 leaves it open; nobody sends it",
    "one length twice in a list": "the same",
    "a length of 2^63": "20 digits",
    "a length of 2^64 + 2": "20 digits",
    "chunked in HTTP/1.0": "RFC 9112, 6.1: such framing is faulty",
    "a folded header": "RFC 9112, 5.2: reject or replace",
    "a header folded by a tab": "the same",
    "a bare LF behind the request line": "RFC 9112, 2.2 allows it; a proxy may not",
    "a bare LF behind a header": "the same",
    "bare LFs only": "the same",
    "a bare LF as the empty line": "the same",
    "b'\\x01' in a value": "cookies of some have it",
    "b'\\x1f' in a value": "the same",
    "b'\\x7f' in a value": "the same",
    "HTTP/0.9 in words": "any version (it was refused behind it)",
    "HTTP/1.2": "the same",
    "HTTP/2.0": "the same",
    "HTTP/1.2 with a bare LF": "the same",
    "a small method": "any token",
    "a method with a small letter": "the same",
    "a long method": "of any length",
    "a very long method": "the same",
    "CONNECT": "any target (it was refused behind it)",
    "another scheme": "the same; so do we, and refuse it behind the reader",
    "a space behind a chunk's size": "some servers send it",
    "a chunk of 2^64": "20 digits",
    "a chunk of 2^64 + 2": "20 digits",
    "an extension with a bare CR": "anything but LF",
    "an extension with a NUL": "the same",
    "an extension without a name": "the same",
    "a folded trailer": "as in a head",
    "a length as a trailer": "RFC 9110, 6.5.1 forbids it",
    "a coding as a trailer": "the same",
    "a bare LF in a trailer": "as in a head",
    "a bare LF at the end": "the same",
}


@dataclass
class Reading:
    """What somebody took from the bytes of one connection."""

    requests: list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]] = field(default_factory=list)
    """Method, target, version and headers."""
    bodies: list[bytes] = field(default_factory=list)
    """Of each request, what came of it; without that of which something was wrong."""
    whole: int = 0
    """So many requests have ended."""
    refused: int | None = None
    """What followed was no request, and got this status."""


def read(*pieces: bytes) -> Reading:
    """By our reader, as `Http11` uses it."""
    found, reader = Reading(), RequestReader()
    try:
        for data in pieces:
            while data:
                if reader.ended:
                    raise BadRequest(400)
                if reader.request is None:
                    data = reader.read_head(data)
                    if (request := reader.request) is None:
                        continue
                    version = request.version.encode()
                    found.requests.append((request.method.encode(), request.target, version, request.headers))
                    found.bodies.append(b"")
                else:
                    body, data = reader.read_body(data)
                    found.bodies[-1] += body
                if reader.ended:
                    found.whole += 1
                    if not reader.request.is_last:
                        reader = RequestReader()
    except BadRequest as error:
        found.refused = error.status
        del found.bodies[found.whole :]
    return found


def read_by_h11(data: bytes) -> Reading:
    """By h11; each request is answered with 404 as soon as it is whole."""
    found, connection = Reading(), h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
    connection.receive_data(data)
    try:
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                headers = list(event.headers)
                found.requests.append((event.method, event.target, event.http_version, headers))
                found.bodies.append(b"")
            elif isinstance(event, h11.Data):
                found.bodies[-1] += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.whole += 1
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                    connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        found.refused = error.error_status_hint
    return found


LONG_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{21}")


def check(data: bytes) -> Reading:
    """That h11 takes all that we take, as the same."""
    ours, theirs = read(data), read_by_h11(data)
    if LONG_CHUNK_SIZE.search(data) and theirs.refused == 400:
        return ours  # h11 wants no more than 20 digits in a chunk's size, llhttp a number of 64 bits
    taken = len(ours.requests)
    for (method, target, version, headers), theirs_taken in zip(ours.requests, theirs.requests, strict=False):
        # h11 writes the one coding that it knows in small letters.
        small = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in headers]
        assert (method, target, version, small) == theirs_taken
    assert len(theirs.requests) >= taken
    if ours.refused is None:
        assert (theirs.whole, theirs.bodies, theirs.refused) == (ours.whole, ours.bodies, None)
    else:
        assert theirs.whole >= ours.whole
        assert theirs.bodies[: ours.whole] == ours.bodies
    return ours


TOKENS = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\x0b", b"\x7f", b"\xe9", b":", b",", b";", b"=", b"+", b"-",
    b"0", b"1", b"2", b"5", b"f", b"00000000000000000000", b"18446744073709551616", b"chunked", b"gzip, ",
    b"close", b"{}", b"HTTP/1.0", b"HTTP/1.2", b"GET ", b"CONNECT ", b"http://x", b"*", b"/", b"#", b"?",
    b"Host: y\r\n", b"Content-Length: 2\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n", b"Expect: 100-continue\r\n",
    b"X: y\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"2\r\n{}\r\n", b"2;a=b\r\n{}\r\n",
]  # fmt: skip
SEEDS = [packet for packet, _ in TAKEN.values()] + [
    get(b"GET /_test/echo HTTP/1.0"),
    get(b"DELETE /_test/echo?a=%20#b HTTP/1.1"),
    post(b"Connection: keep-alive, Close", b"Content-Length: 5", b"{...}"),
    post(b"Accept: */*", b"User-Agent: a (b; c)", b"Content-Length: 19", b"GET / HTTP/1.1\r\n\r\n!"),
]

type Edit = tuple[int, int, bytes]
"""At what place so many bytes are replaced by others."""


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    for place, length, token in edits:
        at = place % (len(data) + 1)
        data = data[:at] + token + data[at + length :]
    return data


EVERYWHERE = (
    b"@P@OST@ @/@e@?a@#b@ @HTTP/1.1@\r@\n@X@:@ y@z @\r\nHost: x\r\nTransfer-Encoding@: @chunked@\r\n@\r@\n@"
    b"@2@;a@=b@\r@\n@{@}@\r@\n@0@;c@\r@\n@T@: t@\r@\n@\r@\n@POST http://@x@/ HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length@:@ 2@\r\n\r\n@{}@"
)
"""Each @ is where a byte more is put."""
PLACES = EVERYWHERE.count(b"@")
BYTES = bytes([*range(33), *b'"(),/:;<=>?@[]{}-0aZ', 127, 128, 255])


class TestAgainstH11:
    @given(
        packets=st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3),
        edits=st.lists(
            st.tuples(st.integers(0, 999), st.integers(0, 4), st.sampled_from([b"", *TOKENS])), max_size=4
        ),
    )
    def test_what_is_almost_valid(self, packets: Sequence[bytes], edits: Sequence[Edit]) -> None:
        check(edited(b"".join(packets), edits))

    def test_much_that_is_almost_valid(self) -> None:
        random, whole, refused = Random(11), 0, 0
        for _ in range(1000):
            edits = [
                (random.randrange(999), random.choice([0, 0, 1, 2, 9]), random.choice([b"", *TOKENS]))
                for _ in range(random.choice([1, 1, 2, 3]))
            ]
            reading = check(edited(b"".join(random.choices(SEEDS, k=random.randint(1, 3))), edits))
            whole += reading.whole
            refused += reading.refused is not None
        assert whole > 500  # else nothing was compared
        assert refused > 300

    @pytest.mark.parametrize("place", range(PLACES))
    def test_every_byte_everywhere(self, place: int) -> None:
        parts = EVERYWHERE.split(b"@")
        before, after = b"".join(parts[: place + 1]), b"".join(parts[place + 1 :])
        for byte in BYTES:
            reading = check(before + bytes([byte]) + after)
            in_data = place == PLACES - 2
            assert reading.refused == 400 or byte or in_data

    @pytest.mark.parametrize("name", TAKEN)
    def test_what_is_taken(self, name: str) -> None:
        reading = check(TAKEN[name][0])
        assert (reading.whole, reading.refused) == (1, None)

    def test_what_h11_takes_and_we_do_not(self) -> None:
        taken = {name for name, (packet, _) in REFUSED.items() if is_fine_by_h11(packet)}
        ours = {name for name, (packet, _) in REFUSED.items() if read(packet).refused is None}
        assert taken - ours | {"another scheme"} == set(H11_TAKES)
        assert ours <= taken


def is_fine_by_h11(packet: bytes) -> bool:
    reading = read_by_h11(packet)
    return reading.refused is None and bool(reading.requests)


class TestPieces:
    """In whatever pieces something comes, it is taken as the same."""

    @pytest.mark.parametrize("name", TAKEN | REFUSED)
    def test_it_is_the_same_wherever_it_is_cut(self, name: str) -> None:
        packet = (TAKEN | REFUSED)[name][0]
        if len(packet) > 1000:
            packet = packet[:100] + packet[-100:]
        data = packet + get(b"GET /_test/echo?follower HTTP/1.1")
        expected = read(data)
        for cut in range(1, len(data)):
            assert read(data[:cut], data[cut:]) == expected, cut
        assert read(*[data[at : at + 1] for at in range(len(data))]) == expected

    @given(
        packets=st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3),
        edits=st.lists(
            st.tuples(st.integers(0, 999), st.integers(0, 4), st.sampled_from([b"", *TOKENS])), max_size=2
        ),
        cuts=st.lists(st.integers(0, 999), max_size=6),
    )
    def test_it_is_the_same_in_any_pieces(
        self, packets: Sequence[bytes], edits: Sequence[Edit], cuts: Sequence[int]
    ) -> None:
        data = edited(b"".join(packets), edits)
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        assert read(*[data[a:b] for a, b in pairwise(places)]) == read(data)

    @pytest.mark.parametrize(("more", "refused"), [(0, None), (1, 431)])
    def test_the_size_of_a_head(self, more: int, refused: int | None) -> None:
        start = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
        head = start + b"a" * (MAX_HEADER_BYTES - len(start) - 4 + more) + b"\r\n\r\n"
        assert read(head).refused == read(*[head[at : at + 1] for at in range(len(head))]).refused == refused

    def test_the_size_of_a_head_without_an_end(self) -> None:
        head = get(b"GET / HTTP/1.1")[:-4].ljust(MAX_HEADER_BYTES, b"a")
        assert read(head[:-1]).refused is None
        assert read(head).refused == 431

    @pytest.mark.parametrize(("more", "refused"), [(0, None), (1, 431)])
    def test_the_number_of_headers(self, more: int, refused: int | None) -> None:
        head = post(*[b"X: y"] * (MAX_HEADERS - 1 + more), b"")
        assert read(head).refused == read(*[head[at : at + 1] for at in range(len(head))]).refused == refused


@pytest.mark.parametrize(("line", "most"), [(b"\r\n", 20), (b"0\r\n\r\n", 2**16 // 5 + 20)])
def test_a_body_of_empty_lines_is_little_work(
    line: bytes, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty line is where the reader looks whether the body has ended."""
    looks: list[int] = []

    class Counting(HttpRequestParser):
        def feed_data(self, data: bytes) -> None:
            looks.append(len(data))
            super().feed_data(data)

    monkeypatch.setattr("minihs.web.request_reader.HttpRequestParser", Counting)
    lines = line * (2**16 // len(line))
    reading = read(chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(lines), lines)))
    assert reading.bodies == [lines]
    assert len(looks) <= most


def test_a_head_that_the_parser_did_not_see_the_end_of_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy:
        def __init__(self, fields: Fields) -> None:
            fields.on_url(b"/")

        def feed_data(self, _: bytes) -> None: ...

    monkeypatch.setattr("minihs.web.request_reader.HttpRequestParser", Lazy)
    assert read(get(b"GET / HTTP/1.0", host=b"")).refused == 400
