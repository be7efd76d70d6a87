# SPDX-License-Identifier: Apache-2.0
"""Asking a host where its Matrix server is: /.well-known/matrix/server (spec: "Resolving server names", step
3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import trio

from minihs.federation import http
from minihs.federation.dial import Dialler, NameNotFound, Target
from minihs.federation.hostnames import is_dialable_host
from minihs.matrix import canonical
from minihs.matrix.ids import parse_server_name

MAX_BODY = 50 * 1024
MAX_REDIRECTS = 10
TIMEOUT = 20.0
"""Seconds for all of it, redirects included."""

DEFAULT_TTL = 24 * 3600
MIN_TTL = 5 * 60
"""Also when the headers forbid caching: else each request to the server would ask again."""
MAX_TTL = 48 * 3600

REDIRECTS = (301, 302, 303, 307, 308)
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class WellKnown:
    """What the host said."""

    server: str | None
    """The delegated server name; None: there is no (valid) delegation."""
    ttl: int
    """Seconds that the answer may be kept."""
    reason: str = ""
    """Why there is no delegation."""


class NoAnswer(Exception):
    """The host could not be asked, or had a passing problem (5xx): it may well have a delegation."""


async def ask(dialler: Dialler, host: str, now_ms: int) -> WellKnown:
    """Fetch and judge. Raises NoAnswer."""
    try:
        with trio.fail_after(TIMEOUT):
            return await _ask(dialler, host, now_ms)
    except trio.TooSlowError:
        raise NoAnswer(f"{host} took too long to answer for its .well-known") from None
    except http.BadResponse as error:
        return WellKnown(None, DEFAULT_TTL, str(error))
    except http.HttpFailure as error:
        if isinstance(error.__cause__ and error.__cause__.__cause__, NameNotFound):
            return WellKnown(None, DEFAULT_TTL, str(error))
        raise NoAnswer(str(error)) from error


async def _ask(dialler: Dialler, host: str, now_ms: int) -> WellKnown:
    url = f"https://{host}/.well-known/matrix/server"
    for _ in range(MAX_REDIRECTS + 1):
        place = _place(url)
        if place is None:
            return WellKnown(None, DEFAULT_TTL, "redirected to an address that is no proper https URL")
        target, authority, path = place
        response = await http.fetch(
            dialler,
            target,
            path,
            [("Host", authority), ("Accept", "application/json"), ("User-Agent", "minihs")],
            max_bytes=MAX_BODY,
        )
        if response.status in REDIRECTS:
            url = _joined(url, response.headers.get("location", ""))
            continue
        if response.status >= 500 or response.status == 429:
            raise NoAnswer(f"{host} answered {response.status} for its .well-known")
        return _judge(response, now_ms)
    return WellKnown(None, DEFAULT_TTL, "too many redirects")


def _judge(response: http.HttpResponse, now_ms: int) -> WellKnown:
    ttl = time_to_live(response.headers, now_ms)
    if response.status != 200:
        return WellKnown(None, ttl, f"the answer was {response.status}")
    try:
        document = canonical.loads(response.body)
    except ValueError:
        return WellKnown(None, ttl, "the answer is not JSON")
    server = document.get("m.server") if isinstance(document, dict) else None
    if not isinstance(server, str):
        return WellKnown(None, ttl, "m.server is missing")
    if parse_server_name(server) is None:
        return WellKnown(None, ttl, "m.server is not a server name")
    return WellKnown(server, ttl)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location) if location else ""
    except ValueError:
        return ""


def _place(url: str) -> tuple[Target, str, str] | None:
    """Where a URL leads: target, Host header, path with query. None: not an https URL that we would
    follow."""
    if len(url) > 2048 or _PRINTABLE.fullmatch(url) is None:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme != "https" or not host or parts.username is not None or not is_dialable_host(host):
        return None
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port is None else f"{bracketed}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, 443 if port is None else port), authority, path


def time_to_live(headers: dict[str, str], now_ms: int) -> int:
    """Seconds that a response may be kept, within our own bounds (RFC 9111, as far as it matters here)."""
    directives = {
        name.strip().lower(): value.strip().strip('"')
        for name, _, value in (part.partition("=") for part in headers.get("cache-control", "").split(","))
    }
    if "no-store" in directives or "no-cache" in directives:
        wanted = 0
    elif "max-age" in directives:
        age = directives["max-age"]
        wanted = int(age) if age.isascii() and age.isdigit() and len(age) < 12 else 0
    elif "expires" in headers:
        try:
            wanted = int(parsedate_to_datetime(headers["expires"]).timestamp() - now_ms / 1000)
        except (ValueError, OverflowError):
            wanted = 0  # an invalid date means "already expired"
    else:
        wanted = DEFAULT_TTL
    return max(MIN_TTL, min(wanted, MAX_TTL))
