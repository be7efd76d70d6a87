# SPDX-License-Identifier: Apache-2.0
"""What the head of a web page says about the page: its title, description and Open Graph properties.

No tree is built. One pass from left to right looks at the few tags that matter; each step moves on by at
least what it has read, so the work is bounded by the length whatever the text is (nested, unclosed, endless).
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from html import unescape

MAX_TAGS = 20_000
"""Tags looked at; what a preview needs is near the beginning."""
MAX_TAG = 8 * 1024
"""Characters of one tag."""
MAX_VALUE = 2 * 1024
"""Characters of one value."""
MAX_PROPERTIES = 100

_NAME = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]{0,20})")
_ATTRIBUTE = re.compile(
    r"""[\s/]*+([^\s/>="']++)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>"']++)))?+""", re.ASCII
)
_CHARSET = re.compile(
    rb"""<meta[^>]{0,500}?charset\s{0,5}=\s{0,5}["']?\s{0,5}([a-zA-Z0-9_:.-]{1,40})""", re.I
)

_CODECS = frozenset(
    [
        "utf-8", "ascii", "utf-16", "utf-16-le", "utf-16-be",
        *(f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
        *(f"cp125{number}" for number in range(9)),
        "cp866", "koi8-r", "koi8-u", "mac-roman", "tis-620", "gb2312", "gbk", "gb18030", "big5",
        "big5hkscs", "euc_jp", "shift_jis", "cp932", "iso2022_jp", "euc_kr", "cp949",
    ]
)  # fmt: skip
"""Python also has codecs that unpack archives."""


@dataclass(slots=True)
class Page:
    title: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    """`property` or `name` of meta tags, lower case, to their content; the first of each."""


def decode(data: bytes, charset: str | None) -> str:
    """The text of a page, by what the header says, or else the page itself."""
    if charset is None and (match := _CHARSET.search(data[:4096])) is not None:
        charset = match[1].decode("ascii")
    for name in (charset, "utf-8"):
        try:
            found = codecs.lookup(name or "").name
            if found in _CODECS:
                return data.decode(found, "replace" if name == charset else "strict")
        except (LookupError, ValueError):
            continue
    return data.decode("cp1252", "replace")


def scan(text: str) -> Page:
    page = Page()
    position = 0
    for _ in range(MAX_TAGS):
        position = text.find("<", position)
        if position < 0:
            break
        if text.startswith("<!--", position):
            end = text.find("-->", position + 4)
            if end < 0:
                break
            position = end + 3
            continue
        match = _NAME.match(text, position)
        if match is None:
            position += 1
            continue
        name = match[2].lower()
        if match[1] or name not in ("meta", "title", "script", "style"):
            position = match.end()
            continue
        attributes, position = read_attributes(text, match.end())
        if name == "meta":
            note_meta(page, attributes)
        elif name in ("title", "script", "style"):
            # Text only, up to the closing tag.
            end = find_close(text, name, position)
            if end < 0:
                break
            if name == "title" and not page.title:
                page.title = tidy(text[position : min(end, position + 4 * MAX_VALUE)])
            position = end
    return page


def read_attributes(text: str, position: int) -> tuple[dict[str, str], int]:
    """The attributes of the tag whose name ends at `position`, and where it ends."""
    limit = min(len(text), position + MAX_TAG)
    found: dict[str, str] = {}
    while position < limit:
        match = _ATTRIBUTE.match(text, position, limit)
        if match is None:
            close = text.find(">", position, limit)
            return found, limit if close < 0 else close + 1
        value = match[2] or match[3] or match[4] or ""
        found.setdefault(match[1].lower(), value)
        position = match.end()
        if text.startswith(">", position):
            return found, position + 1
    return found, position


def find_close(text: str, name: str, position: int) -> int:
    match = _CLOSERS[name].search(text, position)
    return -1 if match is None else match.start()


_CLOSERS = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("title", "script", "style")}


def note_meta(page: Page, attributes: dict[str, str]) -> None:
    name = (attributes.get("property") or attributes.get("name") or "").strip().lower()
    value = tidy(attributes.get("content", ""))
    if name and value and len(name) <= 100 and len(page.properties) < MAX_PROPERTIES:
        page.properties.setdefault(name, value)


def tidy(text: str) -> str:
    """As people read it: entities resolved, white space collapsed, not too long."""
    return " ".join(unescape(text[: 4 * MAX_VALUE]).split())[:MAX_VALUE].replace("\0", "")
