# SPDX-License-Identifier: Apache-2.0
"""One request, taken out of its bytes: by llhttp (httptools), and by rules of our own where that is lenient.

Requests are smuggled past a proxy where it and the server differ in where a request ends. So

- a head is given to llhttp when it is whole, and llhttp's word is enough for its fields only;
- how the body is framed is decided here, from those fields. What else a head asks for, another protocol say,
  after which llhttp would read no body, has no part in it: a body of known length is cut off, and a chunked
  one goes to a parser that knows of nothing else;
- llhttp never sees a byte behind the end of a request. Heads and chunked bodies both end with an empty line,
  so it is given no more than up to the next one. What follows stays where it is until its turn.

The result does not depend on the pieces in which the bytes come.
"""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

type Headers = list[tuple[bytes, bytes]]

MAX_HEADER_BYTES = 32 * 1024
"""Of a request line and headers; of what is no data in a chunked body, between its data and behind them."""
MAX_HEADERS = 200
MAX_LENGTH_DIGITS = 18
"""Of a Content-Length: below 2^63, wherever it goes from here."""

EMPTY_LINE = b"\r\n\r\n"
METHOD = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Z]{1,32}")
"""No small letters: `get` is not GET, but some would take it for that."""
BARE_LF = re.compile(rb"(?<!\r)\n")
VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
ONCE = (b"host", b"content-length", b"transfer-encoding")
"""Headers that say where a request goes and where it ends: with two of them nobody knows which."""
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class BadRequest(Exception):
    """The peer has said what can't be taken as a request; nothing that follows can be, either."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Request:
    """What a head says."""

    __slots__ = ("expects_100", "headers", "is_last", "length", "method", "target", "version")

    def __init__(self, method: bytes, target: bytes, version: str, headers: Headers) -> None:
        self.method = method.decode("ascii")
        self.target = target
        self.version = version
        self.headers = headers
        """As they came, with lower-case names."""
        named = dict(headers)
        if len(named) < len(headers):
            names = [name for name, _ in headers]
            if any(names.count(name) > 1 for name in ONCE):
                raise BadRequest(400)
        is_old = version == "1.0"
        if not is_old and b"host" not in named:
            raise BadRequest(400)
        self.length = body_length(named, is_old=is_old)
        """Of the body; None: it is chunked."""
        self.is_last = is_old or (b"connection" in named and b"close" in words(headers, b"connection"))
        """No other request may follow."""
        self.expects_100 = b"expect" in named and not is_old and b"100-continue" in words(headers, b"expect")


class RequestReader:
    """Reads one request: by `read_head` until there is a `request`, by `read_body` until it has `ended`."""

    __slots__ = ("_chunks", "_head", "_left", "ended", "request")

    def __init__(self) -> None:
        self._head = b""
        """The beginning of a head that has no end yet."""
        self._left = 0
        """Of a body of known length."""
        self._chunks: ChunkedBody | None = None
        self.request: Request | None = None
        self.ended = False

    @property
    def has_begun(self) -> bool:
        return bool(self._head) or self.request is not None

    def read_head(self, data: bytes) -> bytes:
        """Take what belongs to the head; the rest is returned. Raises BadRequest."""
        searched = max(len(self._head) - len(EMPTY_LINE) + 1, 0)
        if self._head:
            data = self._head + data
        end = data.find(EMPTY_LINE, searched) + len(EMPTY_LINE)
        if not len(EMPTY_LINE) <= end <= MAX_HEADER_BYTES:
            # What can't become a request is refused at once, not when its sender gives up. h11 took a bare LF
            # for the end of a line; a proxy may not have.
            if data[0] <= 0x20 or BARE_LF.search(data, searched, MAX_HEADER_BYTES):
                raise BadRequest(400)
            if len(data) >= MAX_HEADER_BYTES:
                raise BadRequest(431)
            self._head = data
            return b""
        self.request = parse_head(data[:end])
        if self.request.length is None:
            self._chunks = ChunkedBody()
        else:
            self._left = self.request.length
            self.ended = not self._left
        return data[end:]

    def read_body(self, data: bytes) -> tuple[bytes, bytes]:
        """What `data` has of the body, and the rest that is another's. Raises BadRequest."""
        if self._chunks is None:
            body, rest = data[: self._left], data[self._left :]
            self._left -= len(body)
            self.ended = not self._left
            return body, rest
        body, rest = self._chunks.read(data)
        self.ended = self._chunks.ended
        return body, rest


class ChunkedBody:
    """A chunked body, without its chunks. Extensions and trailers are dropped."""

    __slots__ = ("_found", "_no_data", "_parser", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        """What may be the beginning of an empty line."""
        self._no_data = 0
        """Bytes since the last data."""
        self._found = Chunks()
        self._parser = HttpRequestParser(self._found)
        self._parser.feed_data(CHUNKED_HEAD)

    @property
    def ended(self) -> bool:
        return self._found.ended

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        """The data in it, and what comes behind its end. Raises BadRequest."""
        seen = self._tail + data
        start, found, data_found = len(self._tail), -1, self._found.data
        while start < len(seen) and not self.ended:
            found = seen.find(EMPTY_LINE, found + 1)
            while found > 0 and seen[found - 1] in EMPTY_LINE:  # more than one, as data only may have
                found = seen.find(EMPTY_LINE, found + 1)
            stop = found + len(EMPTY_LINE) if found >= 0 else len(seen)
            parts = len(data_found)
            try:
                self._parser.feed_data(seen[start:stop])
            except HttpParserError as error:
                raise BadRequest(400) from error
            self._no_data = 0 if len(data_found) > parts else self._no_data + stop - start
            if self._no_data > MAX_HEADER_BYTES:
                raise BadRequest(431)
            start = stop
        self._tail = seen[max(start - len(EMPTY_LINE) + 1, 0) : start]
        body = b"".join(data_found)
        data_found.clear()
        return body, seen[start:]


class Chunks:
    """What llhttp finds in a chunked body."""

    __slots__ = ("data", "ended")

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.ended = False

    def on_body(self, data: bytes) -> None:
        self.data.append(data)

    def on_message_complete(self) -> None:
        self.ended = True


class Fields:
    """What llhttp finds in a head."""

    __slots__ = ("headers", "is_whole", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: Headers = []
        self.is_whole = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.is_whole = True


def parse_head(head: bytes) -> Request:
    """All up to the first empty line. Raises BadRequest."""
    # Of the request line llhttp takes more than there should be: spaces, other protocols, HTTP/0.9. So it is
    # read here, and llhttp must have found the same target.
    line = head[: head.index(b"\r\n")].split(b" ")
    if len(line) != 3:
        raise BadRequest(400)
    method, target, version = line
    if not METHOD.fullmatch(method):
        raise BadRequest(400)
    if version not in VERSIONS:
        raise BadRequest(505 if VERSION.fullmatch(version) and not BARE_LF.search(head) else 400)
    fields = Fields()
    try:
        # As a GET, for llhttp has a list of methods, and reads on in its own way after some.
        HttpRequestParser(fields).feed_data(b"GET" + head[len(method) :])
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:  # a coding of the body is looked at last
        raise BadRequest(501 if fields.is_whole else 400) from error
    if not fields.is_whole or fields.target != target:
        raise BadRequest(400)
    if len(fields.headers) > MAX_HEADERS:
        raise BadRequest(431)
    return Request(method, target, VERSIONS[version], fields.headers)


def body_length(named: dict[bytes, bytes], *, is_old: bool) -> int | None:
    """None: it is chunked. Raises BadRequest for what could be read in two ways (RFC 9112, 6.1 and 6.3)."""
    coding, length = named.get(b"transfer-encoding"), named.get(b"content-length")
    if coding is None:
        if length is None:
            return 0
        if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
            raise BadRequest(400)
        return int(length)
    if length is not None or is_old:
        raise BadRequest(400)
    if coding.lower() != b"chunked":
        raise BadRequest(501)
    return None


def words(headers: Headers, wanted: bytes) -> set[bytes]:
    """Of a header that is a list, wherever its parts are."""
    return {
        word.strip(b" \t").lower() for name, value in headers if name == wanted for word in value.split(b",")
    }
