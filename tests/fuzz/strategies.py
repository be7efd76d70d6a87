# SPDX-License-Identifier: Apache-2.0
"""What is almost valid: something right, and a few changes to it.

The changes are drawn, not their outcome: they are values of their own that fit any object, so hypothesis can
print them and make them smaller, and a case is the same case on every server and at any time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from minihs.matrix.room_versions import ROOM_VERSIONS

type JsonObject = dict[str, Any]

VERSIONS = list(ROOM_VERSIONS)

# -- odd values ------------------------------------------------------------------------------------

NUMBERS: list[Any] = [
    *(0, 1, -1, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30),
    *(1.5, -0.0, 1e-7, 1e308, float("inf"), float("nan")),
]
NAMES = [
    *("one.test", "peer.test", "ONE.TEST", "one.test:8448", "one.test:0", "one.test:99999", "one.test:"),
    *(":8448", "one..test", "-.test", "xn--.test", "1.2.3.4", "1.2.3.4.5", "0x7f.1", "127.0.0.1", "[::1]"),
    *("[::1", "[::ffff:127.0.0.1]:80", "[fe80::1%25eth0]", "::1", "ü.test", "one.test/x", "one.test?x"),
    *("user@one.test", "a" * 63 + ".test", "a" * 230 + ".test", "x." * 127 + "x", "one.test\n", "one.test\0"),
]
IDS = [
    *("@alice:one.test", "@mallory:peer.test", "@:one.test", "@x", "@x:", "@", "!", "$", "#x:one.test"),
    *("!x:peer.test", "!x:one.test", "!" + "A" * 43, "$x:one.test", "$" + "A" * 43, "$" + "/" * 43),
    *("@" + "x" * 250 + ":peer.test", "@ü:peer.test", "@x\0:peer.test", "@x:peer.test\n", "mxc://one.test/x"),
    *("mxc://one.test/../x", "ed25519:1", "ed25519:", "rsa:1", "*", "m.room.create", "m.room.member"),
]
TEXTS = ["", " ", "\0", "\ud800", "\ufffe", "é" * 130, "x" * 256, "x" * 1000, "true", "1", "null", "../.."]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], {"": {}}, [None], [{}], {"a": None}]

_texts = st.sampled_from(TEXTS) | st.sampled_from(IDS) | st.sampled_from(NAMES) | st.text(max_size=8)
_plain = st.sampled_from(OTHERS) | st.sampled_from(NUMBERS) | _texts | st.integers()
odd_values = _plain | st.lists(_plain, max_size=3) | st.dictionaries(_texts, _plain, max_size=2)

# -- changes to a JSON value -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edit:
    """One change, at a place that is found step by step: at each step so many entries on, as far as there
    are any."""

    path: tuple[int, ...]
    how: str
    value: Any = None
    size: int = 0

    def apply(self, root: list[Any]) -> None:
        """`root` holds the value that is changed as its only item."""
        container, key = _find(root, self.path)
        old = container[key]
        match self.how:
            case "set":
                container[key] = copied(self.value)
            case "drop":
                if container is not root:
                    del container[key]
            case "rename":
                if isinstance(container, dict):
                    container[str(self.value)] = container.pop(key)
            case "add":
                if isinstance(old, dict):
                    old[str(self.value)] = copied(root[0]) if self.size % 2 else self.value
                elif isinstance(old, list):
                    old.insert(self.size % (len(old) + 1), self.value)
            case "retype":
                container[key] = _retyped(old, self.size)
            case "nest":
                for _ in range(self.size):
                    old = [old] if self.size % 2 else {"x": old}
                container[key] = old
            case "blow up":
                container[key] = _blown_up(old, self.size)
            case "copy":
                source, at = _find(root, (self.size % 17, self.size % 5)[: 1 + self.size % 2])
                container[key] = copied(source[at])


def _find(root: Any, path: Sequence[int]) -> tuple[Any, Any]:
    container, key = root, 0
    for step in path:
        value = container[key]
        if not isinstance(value, dict | list) or not value:
            break
        container = value
        key = list(value)[step % len(value)] if isinstance(value, dict) else step % len(value)
    return container, key


def _retyped(old: Any, size: int) -> Any:
    others: list[Any] = [[old], {"x": old}, str(old)[:1000], None, {str(n): old for n in range(size % 3)}]
    if isinstance(old, dict):
        others += [list(old.values()), [[key, value] for key, value in old.items()], json.dumps(old)]
    elif isinstance(old, list):
        others += [{str(n): item for n, item in enumerate(old)}, old[0] if old else 0, [old, old]]
    elif isinstance(old, str):
        others += (
            [list(old[:50]), old.upper(), old[:-1], old + " ", " " + old, {old[:200]: {}}, old.encode().hex()]
            if old.isascii()
            else [old[::-1]]
        )
    elif isinstance(old, int | float):
        others += [bool(old), -old, float(max(-(2**1000), min(old, 2**1000)))]
    return others[size % len(others)]


LARGEST = 500_000
"""Bytes that a list may grow to, since what has grown can grow once more."""


def _blown_up(old: Any, size: int) -> Any:
    if isinstance(old, str):
        return ((old or "x") * (20 * size // (len(old) or 1) + 1))[: 20 * size]
    if isinstance(old, list):
        return (old or [None]) * max(2, min(size, LARGEST // len(as_bytes(old))))
    if isinstance(old, dict):
        return {**old, **{f"{size}.{n}": n for n in range(size)}}
    return int(f"1{'0' * min(size, 400)}")


_paths = st.lists(st.integers(0, 16), min_size=1, max_size=5).map(tuple)
edits = st.one_of(
    st.builds(Edit, _paths, st.just("set"), odd_values),
    st.builds(Edit, _paths, st.just("set"), odd_values),
    st.builds(Edit, _paths, st.just("drop")),
    st.builds(Edit, _paths, st.just("rename"), _texts),
    st.builds(Edit, _paths | st.just(()), st.just("add"), _texts, st.integers(0, 9)),
    st.builds(Edit, _paths | st.just(()), st.just("retype"), size=st.integers(0, 30)),
    st.builds(Edit, _paths, st.just("nest"), size=st.sampled_from([1, 2, 3, 50, 98, 99, 300, 997, 1100])),
    st.builds(Edit, _paths, st.just("blow up"), size=st.sampled_from([2, 11, 21, 60, 300, 4000])),
    st.builds(Edit, _paths, st.just("copy"), size=st.integers(0, 90)),
)
some_edits = st.lists(edits, min_size=1, max_size=3)
few_edits = st.just([]) | st.lists(edits, max_size=2)


def copied(value: Any) -> Any:
    """(`deepcopy` calls itself, and what is nested would be too deep for it.)"""
    return json.loads(json.dumps(value))


def edited(value: Any, changes: Sequence[Edit]) -> Any:
    root = [copied(value)]
    for change in changes:
        change.apply(root)
    return root[0]


# -- changes to bytes ------------------------------------------------------------------------------

RUBBISH = [
    b"NaN",
    b"1e400",
    b"01",
    b'"\\ud800"',
    b"\xff",
    b"\0",
    b",",
    b"{",
    b"[" * 200,
    b"//",
    b"'",
    b"1" * 400,
]


@dataclass(frozen=True, slots=True)
class ByteEdit:
    how: str
    place: int = 0
    value: bytes = b""

    def apply(self, data: bytes) -> bytes:
        place = self.place % (len(data) + 1)
        match self.how:
            case "cut":
                return data[:place]
            case "flip":
                return (
                    data[:place]
                    + bytes(byte ^ 1 << self.place % 8 for byte in data[place : place + 1])
                    + data[place + 1 :]
                )
            case "insert":
                after = [n + 1 for n, byte in enumerate(data) if byte in b"{[:,"] or [0]
                place = after[self.place % len(after)]
                return data[:place] + self.value + data[place:]
            case "in front":
                return self.value + data
            case "behind":
                return data + self.value
            case "a key twice":
                return _with_key_twice(data, self.place)
            case _:
                return data.decode("utf-8", "replace").encode("utf-16")


def _with_key_twice(data: bytes, place: int) -> bytes:
    """Some object gets one of its keys again, with another value: before it, or behind, where it counts."""
    quotes = [n for n in range(1, len(data)) if data[n - 1] in b"{," and data[n] == 0x22]
    if not quotes:
        return data
    start = quotes[place % len(quotes)]
    key = data[start : data.find(b'"', start + 1) + 1]
    again = key + [b":null", b":5", b":{}", b":[]", b':"x"', b":{}"][place % 6]
    if place % 2:
        return data[:start] + again + b"," + data[start:]
    return data[:-1] + b"," + again + data[-1:]


byte_edits = st.one_of(
    st.builds(ByteEdit, st.just("a key twice"), st.integers(0, 60)),
    st.builds(ByteEdit, st.just("a key twice"), st.integers(0, 60)),
    st.builds(ByteEdit, st.just("cut"), st.integers(0, 2000)),
    st.builds(ByteEdit, st.just("flip"), st.integers(0, 2000)),
    st.builds(ByteEdit, st.just("insert"), st.integers(0, 100), st.sampled_from(RUBBISH)),
    st.builds(
        ByteEdit, st.just("in front"), value=st.sampled_from([b"\xef\xbb\xbf", b" \n\t", b"{}", b")]}'\n"])
    ),
    st.builds(ByteEdit, st.just("behind"), value=st.sampled_from([b" \n", b"{}", b"\0", b","])),
    st.builds(ByteEdit, st.just("in UTF-16")),
)


def as_bytes(value: Any) -> bytes:
    """JSON, and what Python's own encoder takes for it: NaN, and escapes of lone surrogates."""
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON value made almost right: changes to the value, then to its bytes."""

    edits: Sequence[Edit] = ()
    byte_edits: Sequence[ByteEdit] = ()

    @property
    def is_right(self) -> bool:
        return not self.edits and not self.byte_edits

    def of(self, value: Any) -> bytes:
        data = as_bytes(edited(value, self.edits))
        for change in self.byte_edits:
            data = change.apply(data)
        return data


bodies = st.one_of(
    st.builds(Body, some_edits),
    st.builds(Body, some_edits),
    st.builds(Body, few_edits, st.lists(byte_edits, min_size=1, max_size=2)),
)
mostly_right_bodies = st.just(Body()) | st.just(Body()) | st.just(Body()) | bodies

# -- changes to text ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextEdit:
    how: str
    place: int = 0
    value: str = ""

    def apply(self, text: str) -> str:
        place = self.place % (len(text) + 1)
        match self.how:
            case "insert":
                return text[:place] + self.value + text[place:]
            case "replace":
                return text[:place] + self.value + text[place + len(self.value) :]
            case "cut":
                return text[:place]
            case "drop":
                return text[:place] + text[place + 1 :]
            case "swap case":
                return text[:place] + text[place:].swapcase()
            case _:
                return text + text[place:]


def text_edits(pieces: Sequence[str]) -> st.SearchStrategy[TextEdit]:
    places = st.integers(0, 250)
    return st.one_of(
        st.builds(TextEdit, st.sampled_from(["insert", "replace"]), places, st.sampled_from(pieces)),
        st.builds(TextEdit, st.sampled_from(["cut", "drop", "drop", "swap case", "double"]), places),
    )


def as_latin(text: str) -> bytes:
    """As it goes into a header: no line ends, which would make it two."""
    return text.encode("latin-1", "replace").replace(b"\n", b"?").replace(b"\r", b"?")


_name_letters = st.text("aZ0.-:[]%_/@ \u00fc", max_size=12)
names = st.sampled_from(NAMES) | _name_letters | _name_letters.map(lambda text: text + ".test")

# -- answers ---------------------------------------------------------------------------------------

ODD_HEADERS = [
    *(("Content-Type", "text/html"), ("Content-Type", ""), ("Content-Encoding", "gzip"), ("X", "\xff")),
    *(("Cache-Control", "max-age=99999999999999"), ("Cache-Control", "max-age=-1, no-store"), ("Age", "x")),
    *(("Cache-Control", "max-age=\xb2"), ("Cache-Control", 'max-age="1"'), ("Expires", "0"), ("Expires", "")),
    *(("Expires", "Thu, 01 Jan 99999 00:00:00 GMT"), ("Expires", "Thu, 01 Jan 1970 00:00:00 -9999")),
    *(("Location", "/"), ("Location", "https://[::1"), ("Retry-After", "x"), ("Retry-After", "9" * 30)),
]
STATUSES = [200, 201, 299, 302, 308, 400, 401, 403, 404, 405, 413, 429, 500, 502, 504, 599]


@dataclass(frozen=True, slots=True)
class Answered:
    """How a right answer was spoiled."""

    body: Body = Body()
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()

    @property
    def is_right(self) -> bool:
        return self.body.is_right and self.status == 200 and not self.headers


RAW_ANSWERS = [
    *(b"", b"\0" * 100, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n{}"),
    *(b"HTTP/1.1 999 No\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Go\r\nUpgrade: x\r\n\r\n"),
    *(b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"{}"),
    *(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"HTTP/1.1 204 No\r\n\r\n"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    *(
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99" + b"9" * 30,
    ),
]

headers = st.lists(st.sampled_from(ODD_HEADERS), max_size=2)
answers = st.one_of(
    st.builds(Answered, bodies),
    st.builds(Answered, bodies),
    st.builds(Answered, bodies),
    st.builds(Answered, mostly_right_bodies, st.sampled_from(STATUSES), headers),
)
mostly_right_answers = st.just(Answered()) | st.just(Answered()) | answers

# -- PDUs ------------------------------------------------------------------------------------------

SEALS = [
    "sealed",  # hash and signature are right for what it says
    "as it was",  # changed after it was signed
    "signed only",  # signed, the hash is of what it was before
    "not signed",
    "another key",
    "also by others",  # with signatures of others that are none
    "foreign",  # only signed by somebody else
    "no hashes",
]
BASES = [
    *("message", "member", "topic", "state", "redaction", "levels", "guest", "invite", "aliases", "rules"),
    *("policy", "acl", "tombstone"),
]


@dataclass(frozen=True, slots=True)
class Pdu:
    """An event that is almost right."""

    base: str = "message"
    edits: Sequence[Edit] = ()
    seal: str = "sealed"
    after: Sequence[Edit] = ()
    """Changes after sealing."""
    content: Sequence[Edit] = ()
    """Changes to the content, before all others."""


def pdus(*bases: str) -> st.SearchStrategy[Pdu]:
    base, seal = st.sampled_from(bases or BASES), st.sampled_from(SEALS)
    return st.one_of(
        st.builds(Pdu, base, some_edits),
        st.builds(Pdu, base, content=some_edits),
        st.builds(Pdu, base, content=some_edits, seal=seal),
        st.builds(Pdu, base, few_edits, seal, few_edits, few_edits),
    )


versions = st.sampled_from(VERSIONS)


def spoiled(*things: Answered | Body | Sequence[object]) -> int:
    """How many of them are not right."""
    return sum(bool(thing) if isinstance(thing, Sequence) else not thing.is_right for thing in things)
