# SPDX-License-Identifier: Apache-2.0
"""Globs, in time that does not explode (spec: appendices, "Glob-style matching").

Patterns come from other people's events, so they are never turned into regular expressions that backtrack. A
pattern is cut at its stars; each piece has a fixed length and is looked for once, from left to right.
"""

from __future__ import annotations


def glob_matches(pattern: str, text: str) -> bool:
    """Whether the whole of `text` matches: `*` stands for any characters or none, `?` for exactly one.

    Case matters: whoever wants otherwise lowers both.
    """
    return Glob(pattern).matches(text)


class Glob:
    """A pattern cut up once, for matching many texts."""

    __slots__ = ("_first", "_last", "_least", "_middle", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        pieces = pattern.split("*")
        self._least = len(pattern) - (len(pieces) - 1)
        self._first = pieces[0]
        self._last = pieces[-1] if len(pieces) > 1 else None
        self._middle = [piece for piece in pieces[1:-1] if piece]

    def matches(self, text: str) -> bool:
        # Checked first: it bounds all later work by the length of the text, however long the pattern is.
        if len(text) < self._least:
            return False
        if self._last is None:
            return len(text) == self._least and _is_at(self._first, text, 0)
        end = len(text) - len(self._last)
        if not _is_at(self._first, text, 0) or not _is_at(self._last, text, end):
            return False
        position = len(self._first)
        for piece in self._middle:
            # The leftmost place leaves the most room for what follows, so there is nothing to take back.
            found = _find(piece, text, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True


def _is_at(piece: str, text: str, start: int) -> bool:
    if "?" not in piece:
        return text.startswith(piece, start)
    return all(wanted in ("?", text[start + i]) for i, wanted in enumerate(piece))


def _find(piece: str, text: str, start: int, end: int) -> int:
    """Where `piece` first occurs within text[start:end], or -1."""
    if "?" not in piece:
        return text.find(piece, start, end)
    # Bit i of `alive` says that piece[: i + 1] ends at the current character: all attempts advance
    # together, in one step per character of the text.
    anything = sum(1 << i for i, wanted in enumerate(piece) if wanted == "?")
    accepts = dict.fromkeys(piece, anything)
    for i, wanted in enumerate(piece):
        accepts[wanted] |= 1 << i
    whole = 1 << (len(piece) - 1)
    alive = 0
    for i in range(start, end):
        alive = (alive << 1 | 1) & accepts.get(text[i], anything)
        if alive & whole:
            return i + 1 - len(piece)
    return -1
