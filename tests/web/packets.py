# SPDX-License-Identifier: Apache-2.0
"""Packets that are requests, and packets that are almost some.

Each of `REFUSED` is sent with a good request behind it. That must not be served: whoever takes the packet for
something else than we do, a proxy say, would have sent it under somebody else's name.
"""

from __future__ import annotations

FOLLOWER = b"POST /_test/echo?follower HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"

type Seen = tuple[str, str, bytes]
"""Method, target and body, as a handler got them."""


def post(*lines: bytes, first: bytes = b"POST /_test/echo HTTP/1.1", host: bytes = b"Host: x") -> bytes:
    """The head of a request, and what comes behind it as the last line."""
    *fields, body = lines
    return b"\r\n".join([first, *([host] if host else []), *fields, b"", body])


def get(first: bytes, host: bytes = b"Host: x") -> bytes:
    return post(b"", first=first, host=host)


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body)


REFUSED = {
    # Two lengths, or one that can be read in two ways.
    "length, then chunked": (post(b"Content-Length: 4", b"Transfer-Encoding: chunked", b"0\r\n\r\n"), 400),
    "chunked, then length": (post(b"Transfer-Encoding: chunked", b"Content-Length: 5", b"0\r\n\r\n"), 400),
    "two lengths": (post(b"Content-Length: 2", b"Content-Length: 4", b"{}{}"), 400),
    "one length twice": (post(b"Content-Length: 2", b"Content-Length: 2", b"{}"), 400),
    "one length twice in a list": (post(b"Content-Length: 2, 2", b"{}"), 400),
    "two lengths in a list": (post(b"Content-Length: 2, 4", b"{}"), 400),
    "a length with a plus": (post(b"Content-Length: +2", b"{}"), 400),
    "a negative length": (post(b"Content-Length: -2", b"{}"), 400),
    "a hexadecimal length": (post(b"Content-Length: 0x2", b"{}"), 400),
    "a length with an underscore": (post(b"Content-Length: 1_0", b"{}{}{}{}{}"), 400),
    "a length with a space": (post(b"Content-Length: 1 0", b"{}{}{}{}{}"), 400),
    "a length of other digits": (post(b"Content-Length: \xd9\xa2", b"{}"), 400),
    "an empty length": (post(b"Content-Length:", b"{}"), 400),
    "a length of 2^63": (post(b"Content-Length: 9223372036854775808", b"{}"), 400),
    "a length of 2^64 + 2": (post(b"Content-Length: 18446744073709551618", b"{}"), 400),
    "a length of many zeros": (post(b"Content-Length: " + b"0" * 40 + b"2", b"{}"), 400),
    # Codings.
    "a coding we don't know": (post(b"Transfer-Encoding: gzip", b"0\r\n\r\n"), 501),
    "chunked as the last of two": (post(b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"), 501),
    "chunked as the first of two": (post(b"Transfer-Encoding: chunked, gzip", b"0\r\n\r\n"), (400, 501)),
    "chunked twice in a list": (post(b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"), (400, 501)),
    "chunked twice": (
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
        (400, 501),
    ),
    "another coding, then chunked": (
        post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
        (400, 501),
    ),
    "almost chunked": (post(b"Transfer-Encoding: xchunked", b"0\r\n\r\n"), 501),
    "chunked with a comma": (post(b"Transfer-Encoding: ,chunked", b"0\r\n\r\n"), (400, 501)),
    "chunked with a parameter": (post(b"Transfer-Encoding: chunked;q=1", b"0\r\n\r\n"), (400, 501)),
    "chunked in quotes": (post(b'Transfer-Encoding: "chunked"', b"0\r\n\r\n"), (400, 501)),
    "no coding": (post(b"Transfer-Encoding:", b"0\r\n\r\n"), (400, 501)),
    "chunked in HTTP/1.0": (
        post(b"Transfer-Encoding: chunked", b"0\r\n\r\n", first=b"POST /_test/echo HTTP/1.0"),
        400,
    ),
    # Lines.
    "a folded header": (post(b"X: a", b" b", b""), 400),
    "a header folded by a tab": (post(b"X: a", b"\tb", b""), 400),
    "a first header that is folded": (post(b"", host=b" Host: x"), 400),
    "a folded length": (post(b"Content-Length: 2", b" 0", b"{}"), 400),
    "a space before the colon": (post(b"Content-Length : 2", b"{}"), 400),
    "a tab before the colon": (post(b"Content-Length\t: 2", b"{}"), 400),
    "a header without a colon": (post(b"Content-Length 2", b"{}"), 400),
    "a header without a name": (post(b": 2", b"{}"), 400),
    "a name with a slash": (post(b"X/Y: 2", b"{}"), 400),
    "a name that is not ASCII": (post(b"X\xe9: 2", b"{}"), 400),
    "a bare LF behind the request line": (b"GET /_test/echo HTTP/1.1\nHost: x\r\n\r\n", 400),
    "a bare LF behind a header": (post(b"X: a\nY: b", b""), 400),
    "bare LFs only": (b"GET /_test/echo HTTP/1.1\nHost: x\n\n", 400),
    "a bare LF as the empty line": (b"GET /_test/echo HTTP/1.1\r\nHost: x\r\n\n", 400),
    "a bare CR in a header": (post(b"X: a\rContent-Length: 2", b"{}"), 400),
    "a bare CR before the line's end": (post(b"X: a\r", b""), 400),
    "a bare CR in the request line": (get(b"GET /_test/echo\r HTTP/1.1"), 400),
    "an empty line first": (b"\r\n" + get(b"GET /_test/echo HTTP/1.1"), 400),
    "a bare LF first": (b"\n" + get(b"GET /_test/echo HTTP/1.1"), 400),
    "a space first": (b" " + get(b"GET /_test/echo HTTP/1.1"), 400),
    # Characters.
    **{f"{byte!r} in a name": (post(b"X" + byte + b"Y: a", b""), 400) for byte in (b"\0", b"\x0b", b"\x7f")},
    **{
        f"{byte!r} in a value": (post(b"X: a" + byte + b"b", b""), 400)
        for byte in (b"\0", b"\x01", b"\x0b", b"\x0c", b"\x1f", b"\x7f")
    },
    **{
        f"{byte!r} in the target": (get(b"GET /_test/echo?" + byte + b" HTTP/1.1"), 400)
        for byte in (b"\0", b"\t", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\xe9")
    },
    # Request lines.
    "no Host": (get(b"GET /_test/echo HTTP/1.1", host=b""), 400),
    "two Hosts": (post(b"Host: y", b"", host=b"Host: x"), 400),
    "one Host twice": (post(b"Host: x", b"", host=b"Host: x"), 400),
    "two Hosts in HTTP/1.0": (post(b"Host: y", b"", first=b"GET /_test/echo HTTP/1.0"), 400),
    "HTTP/0.9": (b"GET /_test/echo\r\n\r\n", 400),
    "HTTP/0.9 in a target": (get(b"GET /_test/echo\nX:?a HTTP/1.1"), 400),
    "HTTP/0.9 in words": (get(b"GET /_test/echo HTTP/0.9"), 505),
    "HTTP/1.2": (get(b"GET /_test/echo HTTP/1.2"), 505),
    "HTTP/2.0": (get(b"GET /_test/echo HTTP/2.0"), 505),
    "HTTP/1.2 with a bare LF": (b"GET /_test/echo HTTP/1.2\r\nHost: x\n\r\n", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/11": (get(b"GET /_test/echo HTTP/11"), 400),
    "HTTP/1.10": (get(b"GET /_test/echo HTTP/1.10"), 400),
    "small http": (get(b"GET /_test/echo http/1.1"), 400),
    "another protocol": (get(b"GET /_test/echo RTSP/1.0"), 400),
    "yet another": (get(b"SOURCE /_test/echo ICE/1.0"), 400),
    "two spaces behind the method": (get(b"GET  /_test/echo HTTP/1.1"), 400),
    "two spaces before the version": (get(b"GET /_test/echo  HTTP/1.1"), 400),
    "a space behind the version": (get(b"GET /_test/echo HTTP/1.1 "), 400),
    "a space in the target": (get(b"GET /_test/echo a HTTP/1.1"), 400),
    "a tab for a space": (get(b"GET\t/_test/echo HTTP/1.1"), 400),
    "a small method": (get(b"get /_test/echo HTTP/1.1"), 400),
    "a method with a small letter": (get(b"Post /_test/echo HTTP/1.1"), 400),
    "a long method": (get(b"G" * 33 + b" /_test/echo HTTP/1.1"), 400),
    "a very long method": (get(b"G" * 20_000 + b" /_test/echo HTTP/1.1"), 400),
    "a method that is not ASCII": (get(b"G\xc9T /_test/echo HTTP/1.1"), 400),
    "CONNECT": (get(b"CONNECT example.org:443 HTTP/1.1"), 400),
    "another scheme": (get(b"GET ftp://example.org/_test/echo HTTP/1.1"), 400),
    # Chunks.
    "a chunk longer than it says": (chunked(b"2\r\n{}x\r\n0\r\n\r\n"), 400),
    "a chunk shorter than it says": (chunked(b"3\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk without a size": (chunked(b"\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk with a plus": (chunked(b"+2\r\n{}\r\n0\r\n\r\n"), 400),
    "a negative chunk": (chunked(b"-2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk with 0x": (chunked(b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk that begins with a space": (chunked(b" 2\r\n{}\r\n0\r\n\r\n"), 400),
    "a space behind a chunk's size": (chunked(b"2 \r\n{}\r\n0\r\n\r\n"), 400),
    "a bare LF behind a chunk's size": (chunked(b"2\n{}\r\n0\r\n\r\n"), 400),
    "a bare CR behind a chunk's size": (chunked(b"2\r{}\r\n0\r\n\r\n"), 400),
    "a bare LF behind a chunk": (chunked(b"2\r\n{}\n0\r\n\r\n"), 400),
    "a bare LF behind the last chunk": (chunked(b"2\r\n{}\r\n0\n\r\n"), 400),
    "a bare LF at the end": (chunked(b"2\r\n{}\r\n0\r\n\n"), 400),
    "a chunk of 2^64": (chunked(b"10000000000000000\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk of 2^64 + 2": (chunked(b"10000000000000002\r\n{}\r\n0\r\n\r\n"), 400),
    "an extension with a bare LF": (chunked(b"2;a\n{}\r\n0\r\n\r\n"), 400),
    "an extension with a bare CR": (chunked(b"2;a\rb\r\n{}\r\n0\r\n\r\n"), 400),
    "an extension with a NUL": (chunked(b"2;a\0\r\n{}\r\n0\r\n\r\n"), 400),
    "an extension without a name": (chunked(b"2;\r\n{}\r\n0\r\n\r\n"), 400),
    "a trailer that is none": (chunked(b"2\r\n{}\r\n0\r\nX\r\n\r\n"), 400),
    "a folded trailer": (chunked(b"2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n"), 400),
    "a length as a trailer": (chunked(b"2\r\n{}\r\n0\r\nContent-Length: 2\r\n\r\n"), 400),
    "a coding as a trailer": (chunked(b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
    "a bare LF in a trailer": (chunked(b"2\r\n{}\r\n0\r\nX: a\nY: b\r\n\r\n"), 400),
    # More than the request said that there would be.
    "a body longer than its length": (post(b"Content-Length: 2", b"{}{}"), (200, 400)),
    "a body of no length": (post(b"{}"), (200, 400)),
    "an empty line behind a body": (post(b"Content-Length: 2", b"{}\r\n"), (200, 400)),
    "something behind the last request": (post(b"Connection: close", b"Content-Length: 2", b"{}"), 400),
    "something behind HTTP/1.0": (get(b"GET /_test/echo HTTP/1.0"), 400),
}  # fmt: skip

ECHO = ("POST", "/_test/echo", b"{}")
FOLLOWED = ("POST", "/_test/echo?follower", b"{}")

TAKEN: dict[str, tuple[bytes, list[Seen]]] = {
    "a length": (post(b"Content-Length: 2", b"{}"), [ECHO]),
    "a length with zeros and spaces": (post(b"content-length: \t 0002 \t ", b"{}"), [ECHO]),
    "no length": (post(b""), [("POST", "/_test/echo", b"")]),
    "chunked": (chunked(b"1\r\n{\r\n01\r\n}\r\n0\r\n\r\n"), [ECHO]),
    "chunked in large letters": (post(b"TRANSFER-ENCODING: CHUNKED", b"2\r\n{}\r\n0\r\n\r\n"), [ECHO]),
    "chunked, of nothing": (chunked(b"0\r\n\r\n"), [("POST", "/_test/echo", b"")]),
    "chunks with extensions": (chunked(b'1;a\r\n{\r\n1;a=b;c="d;e"\r\n}\r\n0;f=g\r\n\r\n'), [ECHO]),
    "trailers": (chunked(b"2\r\n{}\r\n0\r\nX: a\r\nHost: y\r\n\r\n"), [ECHO]),
    "empty lines in chunks": (
        chunked(b"8\r\n\r\n\r\n\r\n\r\n\r\n7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n"),
        [("POST", "/_test/echo", b"\r\n\r\n\r\n\r\n0\r\n\r\n\r\n")],
    ),
    "an upgrade with a body": (
        post(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 2", b"{}"),
        [ECHO],
    ),
    "an upgrade with chunks": (
        post(b"Connection: upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        [ECHO],
    ),
    "an upgrade as a trailer": (
        chunked(b"2\r\n{}\r\n0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
        [ECHO],
    ),
    "an absolute target": (
        get(b"GET HTTP://example.org/_test/echo?a HTTP/1.1"),
        [("GET", "/_test/echo?a", b"")],
    ),
    "every printable character": (
        get(b"GET /_test/echo?" + bytes(range(0x21, 0x7F)) + b" HTTP/1.1"),
        [("GET", "/_test/echo?" + bytes(range(0x21, 0x7F)).decode(), b"")],
    ),
    "values of all that values may have": (
        post(b"X: " + bytes({9, *range(32, 127), *range(128, 256)}), b"Y:", b"Content-Length: 2", b"{}"),
        [ECHO],
    ),
    "an old Expect": (post(b"Expect: something", b"Content-Length: 2", b"{}"), [ECHO]),
}  # fmt: skip
