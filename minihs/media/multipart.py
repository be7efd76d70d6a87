# SPDX-License-Identifier: Apache-2.0
"""multipart/mixed, as servers hand media to each other (server-server-api, "Content Repository"; RFC 2046).

The answer has exactly two parts: a JSON object about the media, and the media itself or where it is. Parts
are taken apart as they stream by, nothing is kept but what is still undecided, and everything has a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from minihs.media.names import essence, parameters_of

MAX_PREAMBLE = 8 * 1024
"""Bytes before the first part."""
MAX_PART_HEADERS = 16 * 1024
MAX_PART_HEADER_LINES = 64
MAX_BLANKS = 256
"""Bytes of white space behind a boundary."""
MAX_JSON = 64 * 1024
"""Bytes of the part about the media, of which nothing is used."""

_BOUNDARY = re.compile(r"[ -~]{0,199}[!-~]")
"""RFC 2046 has at most 70 characters, and fewer kinds of them; nothing is lost by taking more."""
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")


class BadMultipart(ValueError):
    """Not multipart, or not as the specification has it. The text says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part begins."""

    headers: dict[str, str]
    """Names in lower case; of repeated ones the first."""


@dataclass(frozen=True, slots=True)
class End:
    """The last part has ended, and so has the body."""


type Event = Part | bytes | End


def boundary_of(content_type: str | None) -> str:
    """The boundary that a Content-Type announces."""
    if content_type is None or essence(content_type) != "multipart/mixed":
        raise BadMultipart("the answer is not multipart/mixed")
    boundary = parameters_of(content_type).get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise BadMultipart("the answer has no usable boundary")
    return boundary


class _State(Enum):
    PREAMBLE = auto()
    AFTER_BOUNDARY = auto()
    HEADERS = auto()
    CONTENT = auto()
    DONE = auto()


class Parser:
    """Feed it the body as it comes; it says what begins, what is in it, and when it has ended."""

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        # The first boundary may stand at the very beginning, hence the line end.
        self._buffer = bytearray(b"\r\n")
        self._state = _State.PREAMBLE
        self._preamble_bytes = 0
        self._not_content = 0
        """Bytes at the beginning of the buffer that belong to the line end before the content."""

    def feed(self, data: bytes) -> Iterator[Event]:
        """Must be iterated to its end."""
        self._buffer += data
        while (events := self._step()) is not None:
            yield from events

    def close(self) -> None:
        """The body has ended; BadMultipart if it should not have."""
        if self._state is not _State.DONE:
            raise BadMultipart("the answer ended too early")

    def _step(self) -> list[Event] | None:
        """One step on; None if that needs more data."""
        match self._state:
            case _State.PREAMBLE:
                return self._preamble()
            case _State.AFTER_BOUNDARY:
                return self._after_boundary()
            case _State.HEADERS:
                return self._headers()
            case _State.CONTENT:
                return self._content()
            case _State.DONE:
                self._buffer.clear()  # an epilogue means nothing
                return None

    def _preamble(self) -> list[Event] | None:
        skipped, complete = self._until_delimiter()
        self._preamble_bytes += len(skipped)
        if self._preamble_bytes > MAX_PREAMBLE:
            raise BadMultipart("the answer does not begin with a part")
        if not complete:
            return None
        self._state = _State.AFTER_BOUNDARY
        return []

    def _after_boundary(self) -> list[Event] | None:
        """`--` ends it all; a line end, perhaps after blanks, begins a part."""
        if len(self._buffer) < 2:
            return None
        if self._buffer.startswith(b"--"):
            self._state = _State.DONE
            return [End()]
        end = self._buffer.find(b"\r\n", 0, MAX_BLANKS)
        if end < 0 and len(self._buffer) < MAX_BLANKS:
            return None
        if end < 0 or self._buffer[:end].strip(b" \t"):
            raise BadMultipart("there is something else behind a boundary")
        del self._buffer[:end]  # the line end stays: a part without headers begins with an empty line
        self._state = _State.HEADERS
        return []

    def _headers(self) -> list[Event] | None:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_PART_HEADERS)
        if end < 0:
            if len(self._buffer) >= MAX_PART_HEADERS:
                raise BadMultipart("a part has too many headers")
            return None
        headers = _parsed(bytes(self._buffer[2:end]))
        del self._buffer[: end + 2]  # a line end stays: if there is no content, it is that of the delimiter
        self._not_content = 2
        self._state = _State.CONTENT
        return [Part(headers)]

    def _content(self) -> list[Event] | None:
        taken, complete = self._until_delimiter()
        skip = min(self._not_content, len(taken))
        self._not_content -= skip
        content = taken[skip:]
        if complete:
            self._state = _State.AFTER_BOUNDARY
        elif not taken:
            return None
        return [content] if content else []

    def _until_delimiter(self) -> tuple[bytes, bool]:
        """What certainly comes before the next delimiter, and whether that has been reached."""
        found = self._buffer.find(self._delimiter)
        size = found if found >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        taken = bytes(self._buffer[:size])
        del self._buffer[: size + (len(self._delimiter) if found >= 0 else 0)]
        return taken, found >= 0


def _parsed(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    lines = block.split(b"\r\n") if block else []
    if len(lines) > MAX_PART_HEADER_LINES:
        raise BadMultipart("a part has too many headers")
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise BadMultipart("a part has a header that is none")
        headers.setdefault(match[1].decode("ascii").lower(), match[2].decode("latin-1").rstrip())
    return headers


class Frame:
    """What stands around the media when we hand it to another server."""

    def __init__(self, boundary: str, headers: Mapping[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.before = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n{lines}\r\n"
        ).encode("latin-1")
        self.after = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.content_type = f"multipart/mixed; boundary={boundary}"

    @property
    def size(self) -> int:
        return len(self.before) + len(self.after)
