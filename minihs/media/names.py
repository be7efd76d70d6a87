# SPDX-License-Identifier: Apache-2.0
"""Names and types of media: which are taken, and how they are written in headers (client-server-api,
"Matrix Content (mxc://) URIs", "Serving inline content").

Everything here comes from strangers. What passes can be put into a header as it is; none of it is ever part
of a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from minihs.matrix.ids import fits

DEFAULT_TYPE = "application/octet-stream"

MAX_TYPE = 255
MAX_FILENAME = 1024
"""Bytes. File systems have 255; nobody's upload should fail for a name."""

INLINE_TYPES = frozenset(
    [
        "text/css", "text/plain", "text/csv", "application/json", "application/ld+json",
        "image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif",
        "video/mp4", "video/webm", "video/ogg", "video/quicktime",
        "audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav",
        "audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac",
    ]
)  # fmt: skip
"""What a browser may show in place; it will not run scripts for it. The specification's list."""

_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
# Possessive throughout (`*+`): what could be divided between two repetitions would be tried every way.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*+"'
_TYPE = re.compile(rf"{_WORD}/{_WORD}(?:[ \t]*+;[ \t]*+(?:{_WORD}=(?:{_WORD}|{_QUOTED}))?)*+")
_PARAMETER = re.compile(rf"[ \t]*+;[ \t]*+(?:({_WORD})[ \t]*+=[ \t]*+({_WORD}|{_QUOTED}))?")
_ROUGH_PARAMETER = re.compile(r'[ \t]*+;[ \t]*+([\w*-]++)="([^"]*+)"')
"""Text that is not ASCII between quotes, mostly: taken up to the closing quote."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[A-Za-z0-9 !#$&'()+,.;=@\[\]^_`{}~-]+")
"""What may stand between quotes without any reader of headers getting it wrong."""


def is_media_id(text: str) -> bool:
    return _MEDIA_ID.fullmatch(text) is not None


def content_type(text: str | None) -> str:
    """The type as it is kept; what is no type, or none at all, is `application/octet-stream`."""
    if text is None:
        return DEFAULT_TYPE
    text = text.strip(" \t")
    if len(text) > MAX_TYPE or _TYPE.fullmatch(text) is None:
        return DEFAULT_TYPE
    return text


def essence(media_type: str) -> str:
    """The type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


def served_type(media_type: str) -> str:
    """The Content-Type of an answer: text without a charset is UTF-8, as all that clients send is."""
    if essence(media_type).startswith("text/") and "charset" not in media_type.lower():
        return f"{essence(media_type)}; charset=utf-8"
    return media_type


def filename(text: str | None) -> str | None:
    """The name as it is kept: without control characters; None if nothing is left or it is too long."""
    if text is None:
        return None
    text = _CONTROLS.sub("", text)
    return text if text and fits(text, MAX_FILENAME) else None


def disposition(kind: str, name: str | None) -> str:
    """A Content-Disposition header (RFC 6266)."""
    if name is None:
        return kind
    if _PLAIN.fullmatch(name):
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename*=utf-8''{quote(name, safe='')}"


def disposition_for(media_type: str, name: str | None) -> str:
    return disposition("inline" if essence(media_type) in INLINE_TYPES else "attachment", name)


def filename_in(header: str | None) -> str | None:
    """The file name of another server's Content-Disposition. `filename*` counts before `filename`."""
    if header is None or len(header) > 8 * MAX_FILENAME:
        return None
    parameters = parameters_of(header)
    extended = parameters.get("filename*", "")
    charset, _, rest = extended.partition("'")
    _, quote_mark, encoded = rest.partition("'")
    if quote_mark and charset.lower() in ("utf-8", "iso-8859-1"):
        try:
            return filename(unquote_to_bytes(encoded).decode(charset))
        except UnicodeDecodeError:
            return None
    plain = parameters.get("filename")
    if plain is None:
        return None
    try:  # headers are read as Latin-1, but some servers write UTF-8 into them
        return filename(plain.encode("latin-1").decode())
    except UnicodeError:
        return filename(plain)


def parameters_of(header: str) -> Mapping[str, str]:
    """The parameters after the first part of a header, names in lower case; the first of each counts. Reads
    as far as it can."""
    found: dict[str, str] = {}
    position = header.find(";")
    while 0 <= position < len(header):
        match = _PARAMETER.match(header, position)
        if match is None or match[1] is None:
            match = _ROUGH_PARAMETER.match(header, position) or match
        if match is None:
            return found
        if match[1] is not None:
            found.setdefault(match[1].lower(), _unquoted(match[2]))
        position = match.end()
        if position < len(header) and header[position] != ";":
            position = header.find(";", position)
    return found


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    return re.sub(r"\\(.)", r"\1", value.removeprefix('"').removesuffix('"'))
