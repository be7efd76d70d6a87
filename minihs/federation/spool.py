# SPDX-License-Identifier: Apache-2.0
"""A large answer on disk, taken apart without being held in memory (those to send_join and /state: 20 MB and
more).

The bytes go to a nameless file as they come, up to a cap. The file is mapped, and split into its lists of
events without decoding them: the reader decodes in batches of its own size. The keys of the object may come
in any order.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast, overload

import msgspec

from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject

MAX_COMMAS, BYTES_PER_COMMA = 8_000_000, 24
"""An answer may have so many commas, and if it is short FREE_COMMAS and one for so many bytes. Each may part
two items of a list, which take memory before their number is known; an event has some fifteen in 700
bytes."""
FREE_COMMAS = 500_000


class BadAnswer(ValueError):
    """The answer is not what it should be. The text says why."""


class _JoinAnswer(msgspec.Struct):
    """PUT /send_join v2, 200 (spec: "Joining Rooms")."""

    state: list[msgspec.Raw]
    auth_chain: list[msgspec.Raw]
    event: msgspec.Raw = msgspec.Raw(b"null")
    """(`Raw | None` would be read as "null only".)"""
    members_omitted: bool = False
    servers_in_room: list[str] | None = None
    origin: str | None = None


class _StateAnswer(msgspec.Struct):
    """GET /state, 200 (spec: "Retrieving event authorization information")."""

    pdus: list[msgspec.Raw]
    auth_chain: list[msgspec.Raw]


class RawList(Sequence[bytes]):
    """Undecoded JSON values, copied out of the file one at a time."""

    def __init__(self, items: list[msgspec.Raw]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [bytes(item) for item in self._items[index]]
        return bytes(self._items[index])

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(item) for item in self._items)


class SpooledJoin:
    """An answer to send_join."""

    def __init__(self, answer: _JoinAnswer, size: int) -> None:
        self.state = RawList(answer.state)
        self.auth_chain = RawList(answer.auth_chain)
        self.members_omitted = answer.members_omitted
        self.servers_in_room = answer.servers_in_room
        self.event: JsonObject | None = None
        self.size = size
        """Bytes of the whole answer."""
        try:
            event = canonical.loads(bytes(answer.event))
        except ValueError as error:
            raise BadAnswer(f"the event is bad JSON: {error}") from error
        if event is not None and not isinstance(event, dict):
            raise BadAnswer("the event is not an object")
        self.event = event

    def __repr__(self) -> str:
        return f"<SpooledJoin: {len(self.state)} state, {len(self.auth_chain)} auth chain, {self.size} bytes>"


class SpooledState:
    """An answer to /state."""

    def __init__(self, answer: _StateAnswer) -> None:
        self.state = RawList(answer.pdus)
        self.auth_chain = RawList(answer.auth_chain)


class Spool:
    """The file that an answer is written to. Its space is free again when it is closed and nobody reads any
    more."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 -- closed by close()
        self.size = 0
        self._commas = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self.size += len(chunk)
        self._commas += chunk.count(b",")

    def parse_join(self) -> SpooledJoin:
        """Split what was written. Raises BadAnswer."""
        return SpooledJoin(self._parse(_JoinAnswer, "a join"), self.size)

    def parse_state(self) -> SpooledState:
        """Raises BadAnswer."""
        return SpooledState(self._parse(_StateAnswer, "a state"))

    def _parse[T](self, type: type[T], what: str) -> T:
        self._file.flush()
        if not self.size:
            raise BadAnswer("the answer is empty")
        if self._commas > min(FREE_COMMAS + self.size // BYTES_PER_COMMA, MAX_COMMAS):
            raise BadAnswer("the answer has too many values")
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            return msgspec.json.decode(mapped, type=type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadAnswer(f"the answer is not {what}: {error}") from error

    def close(self) -> None:
        self._file.close()
