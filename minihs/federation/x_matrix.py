# SPDX-License-Identifier: Apache-2.0
"""The `Authorization: X-Matrix` header, as text (spec: server-server-api, "Request Authentication").

What we send is in the narrow form that old servers understand. What we take is wider: any case, blanks around
commas, quoted with backslashes or not quoted, colons unquoted, unknown parameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from minihs.matrix import canonical

MAX_HEADER = 8 * 1024
MAX_PARAMETERS = 32

_SCHEME = re.compile(r"\s*x-matrix[ \t]+", re.IGNORECASE)

# One parameter: a token by RFC 9110 section 5.6.2, or what old servers leave unquoted all the same (":", "/",
# "=" and brackets, in server names, key ids and base64). No two alternatives match the same text: it runs in
# linear time.
_PARAMETER = re.compile(
    r"""[ \t]*(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*
        (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<plain>[^ \t",]*) )
        [ \t]*(?:,|$)""",
    re.VERBOSE | re.DOTALL,
)
_EMPTY = re.compile(r"[ \t]*(?:,|$)")
_KEY_ID = re.compile(r"ed25519:[A-Za-z0-9_.+/=-]{1,128}")
_SIGNATURE = re.compile(r"[A-Za-z0-9+/_-]{86}(?:==)?")


@dataclass(frozen=True, slots=True)
class XMatrix:
    """One signature on a request."""

    origin: str
    destination: str | None
    """None: not said, which only servers from before version 1.3 of the spec do."""
    key_id: str
    signature: str


class BadHeader(ValueError):
    """Not an X-Matrix header as it should be. The text says why."""


def is_key_id(text: object) -> bool:
    """Key ids of the one algorithm there is. Wider than the spec's grammar, as some old keys are."""
    return isinstance(text, str) and _KEY_ID.fullmatch(text) is not None


def is_x_matrix(header: str) -> bool:
    """Whether the header is of our scheme at all."""
    return _SCHEME.match(header) is not None


def parse(header: str) -> XMatrix:
    """Take an Authorization header apart. Raises BadHeader."""
    if len(header) > MAX_HEADER:
        raise BadHeader("the Authorization header is too long")
    scheme = _SCHEME.match(header)
    if scheme is None:
        raise BadHeader("the Authorization header is not of the X-Matrix scheme")
    parameters = _parameters(header, scheme.end())
    try:
        origin, key_id, signature = parameters["origin"], parameters["key"], parameters["sig"]
    except KeyError as missing:
        raise BadHeader(f"the X-Matrix header lacks {missing}") from None
    if not is_key_id(key_id):
        raise BadHeader("the key is not an ed25519 key id")
    if _SIGNATURE.fullmatch(signature) is None:
        raise BadHeader("the signature is not 64 bytes in base64")
    return XMatrix(origin, parameters.get("destination"), key_id, signature)


def _parameters(header: str, start: int) -> dict[str, str]:
    found: dict[str, str] = {}
    position = start
    while position < len(header):
        empty = _EMPTY.match(header, position)
        if empty is not None:  # RFC 9110 section 5.6.1: empty elements of a list are to be ignored
            position = max(empty.end(), position + 1)
            continue
        match = _PARAMETER.match(header, position)
        if match is None:
            raise BadHeader("the X-Matrix header is malformed")
        name = match["name"].lower()
        if name in found:
            raise BadHeader(f"the X-Matrix header says {name!r} twice")
        if len(found) >= MAX_PARAMETERS:
            raise BadHeader("the X-Matrix header has too many parameters")
        quoted = match["quoted"]
        found[name] = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        position = match.end()
    return found


def signed_bytes(*, method: str, uri: str, origin: str, destination: str, content: bytes | None) -> bytes:
    """What the signature is made over: canonical JSON of the request. `content` is canonical JSON already.

    Written piece by piece, since the content can be large and is needed in this form anyway.
    """
    pieces = [] if content is None else [b'"content":' + content]
    for name, value in (("destination", destination), ("method", method), ("origin", origin), ("uri", uri)):
        pieces.append(canonical.encode(name) + b":" + canonical.encode(value))
    return b"{" + b",".join(pieces) + b"}"


def format_header(*, origin: str, destination: str, key_id: str, signature: str) -> str:
    """The header as we send it."""
    return f'X-Matrix origin="{origin}",destination="{destination}",key="{key_id}",sig="{signature}"'
