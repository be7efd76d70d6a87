# SPDX-License-Identifier: Apache-2.0
"""Identifiers and server names: what is well formed (spec: appendices, "Identifier Grammar").

The `is_` functions take anything, so that they can be asked about a value straight out of hostile JSON.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple, TypeGuard

MAX_LENGTH = 255
"""Bytes of UTF-8 in an identifier, sigil and domain included."""

NAMES_REMEMBERED = 1024
"""Server names whose parts are not made out anew: every identifier in every event has one."""

IDS_REMEMBERED = 1024
"""Users and rooms whose ids are not looked at anew with each event: most have been in one lately."""

_MAX_PORT = 65535

# Labels of letters, digits and hyphens. Empty labels are refused though the bare grammar would let them pass:
# ".." is a path in disguise, and "evil.com." would slip past an ACL entry for "evil.com".
_SERVER_NAME = re.compile(
    r"(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_DOTTED_NUMBERS = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_LOCAL_USER_PART = re.compile(r"[a-z0-9._=/+-]+")
_HASH_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class ServerName(NamedTuple):
    host: str
    """A DNS name, an IPv4 literal, or an IPv6 literal in its brackets."""

    port: int | None


def parse_server_name(text: str) -> ServerName | None:
    """The parts of a server name, or None if it is not a valid one (appendices, "Server Name")."""
    return _parts_of(text) if len(text) <= MAX_LENGTH else None


@lru_cache(NAMES_REMEMBERED)
def _parts_of(text: str) -> ServerName | None:
    match = _SERVER_NAME.fullmatch(text)
    if match is None:
        return None
    host, port_text = match.groups()
    # Four numbers can only be meant as an address, so 999.1.1.1 is not taken for a DNS name.
    if (host[0] == "[" or (host[-1].isdigit() and _DOTTED_NUMBERS.fullmatch(host))) and not is_ip_literal(
        host
    ):
        return None
    port = None if port_text is None else int(port_text)
    if port is not None and port > _MAX_PORT:
        return None
    return ServerName(host, port)


def is_ip_literal(host: str) -> bool:
    """Whether the host part of a server name is an IPv4 address or a bracketed IPv6 address."""
    try:
        if host.startswith("[") and host.endswith("]"):
            ipaddress.IPv6Address(host[1:-1])
        else:
            ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def is_server_name(x: object) -> TypeGuard[str]:
    return isinstance(x, str) and parse_server_name(x) is not None


def is_user_id(x: object) -> TypeGuard[str]:
    """`@localpart:server`, historical ones included: those must be accepted in events, an empty localpart too
    (appendices, "Historical User IDs")."""
    return _has_domain(x, "@")


def is_local_user_part(x: object) -> TypeGuard[str]:
    """What a new user of this server may be called (appendices, "User Identifiers")."""
    return isinstance(x, str) and _LOCAL_USER_PART.fullmatch(x) is not None


def is_room_id(x: object) -> TypeGuard[str]:
    """Either form: `!opaque:server`, or since room version 12 `!` and the hash of the create event."""
    return _has_domain(x, "!") or is_hash_room_id(x)


def is_domain_room_id(x: object) -> TypeGuard[str]:
    """`!opaque:server`, the form of room versions 1 to 11."""
    return _has_domain(x, "!")


def is_hash_room_id(x: object) -> TypeGuard[str]:
    """`!` and 43 characters of URL-safe base64, the form since room version 12."""
    return isinstance(x, str) and x[:1] == "!" and _HASH_ID.fullmatch(x, 1) is not None


def is_room_alias(x: object) -> TypeGuard[str]:
    return _has_domain(x, "#")


def is_event_id(x: object) -> TypeGuard[str]:
    """`$` and something, at most 255 bytes: an event id of any room version.

    References to other events are held to no more than this. Real rooms hold events that refer to events
    which cannot exist; refusing those would split us from the servers that accepted them.
    """
    return isinstance(x, str) and 1 < len(x) <= MAX_LENGTH and x[0] == "$" and (x.isascii() or fits(x))


def is_domain_event_id(x: object) -> TypeGuard[str]:
    """`$opaque:server`, the form of room versions 1 and 2."""
    return _has_domain(x, "$")


def domain_of(identifier: str) -> str:
    """The text after the first colon. ValueError if there is no colon."""
    _, colon, domain = identifier.partition(":")
    if not colon:
        raise ValueError("the identifier has no domain")
    return domain


def localpart_of(identifier: str) -> str:
    """The text between the sigil and the first colon. ValueError if there is no colon."""
    localpart, colon, _ = identifier[1:].partition(":")
    if not colon:
        raise ValueError("the identifier has no domain")
    return localpart


def fits(text: str, limit: int = MAX_LENGTH) -> bool:
    """Whether `text` is at most `limit` bytes of UTF-8 (so it holds no lone surrogates either)."""
    if text.isascii():
        return len(text) <= limit
    try:
        return len(text) <= limit and len(text.encode()) <= limit
    except UnicodeEncodeError:
        return False


def _has_domain(x: object, sigil: str) -> TypeGuard[str]:
    # (A character is a byte at least, so what is remembered is bounded.)
    return isinstance(x, str) and x[:1] == sigil and len(x) <= MAX_LENGTH and _is_domain_id(x)


@lru_cache(IDS_REMEMBERED)
def _is_domain_id(text: str) -> bool:
    localpart, colon, domain = text.partition(":")
    return colon == ":" and "\0" not in localpart and fits(text) and parse_server_name(domain) is not None
