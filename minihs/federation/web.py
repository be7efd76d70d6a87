# SPDX-License-Identifier: Apache-2.0
"""GET of any web address, for what other servers redirect us to and for previews of links.

The address comes from strangers. Each connection, those after redirects included, is made by the one dialler,
which refuses private addresses at the moment of connecting; nothing of ours (no token, no signature) is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpcore2
import trio

from minihs.federation import http
from minihs.federation.connections import Connections
from minihs.federation.dial import Dialler, Target
from minihs.federation.http11 import Response
from minihs.matrix.federation_errors import RemoteProtocolError, RemoteRefused, Unreachable

MAX_URL = 4096
"""Characters."""

MAX_BODY = 4 * 1024 * 1024 * 1024
"""Bytes, as the last resort: whoever reads the body has a cap of its own."""

USER_AGENT = "minihs (bot)"

_REDIRECTS = (301, 302, 303, 307, 308)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class IncomingBody:
    """An answer that has begun."""

    headers: Mapping[str, str]
    url: str
    body: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A URL that we are willing to ask for."""

    scheme: str
    host: str
    """A name in ASCII, or an address without brackets."""
    port: int
    target: str
    url: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> WebAddress | None:
    """None for what is not a proper http(s) address, or carries a user name."""
    if len(url) > MAX_URL or any(character <= " " or character == "\x7f" for character in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii") if parts.hostname else ""
    except (ValueError, UnicodeError):
        return None
    if parts.scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc or "%" in host:
        return None
    path = parts.path or "/"
    target = path + (f"?{parts.query}" if parts.query else "")
    target = "".join(c if "!" <= c <= "~" and c not in '"<>\\^`{|}' else _escaped(c) for c in target)
    return WebAddress(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], target, url)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


class Web:
    """Asks for one address after the other; keeps no connections and no cookies."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    @asynccontextmanager
    async def get(
        self, url: str, *, accept: str, within: float, max_redirects: int
    ) -> AsyncIterator[IncomingBody]:
        """The success that the address leads to in the end. The deadline covers the redirects and the body
        of the `async with`. Raises FederationError."""
        last_host = ""
        with trio.move_on_after(within) as scope:
            for _ in range(max_redirects + 1):
                address = parse_url(url)
                if address is None:
                    raise RemoteProtocolError(last_host, "the address is not one that is asked for")
                last_host = address.host
                async with self._ask(address, accept) as response:
                    if response.status not in _REDIRECTS:
                        async with self._success(address, response) as answer:
                            yield answer
                        return
                    location = http.headers_of(response).get("location")
                    if not location:
                        raise RemoteProtocolError(address.host, "redirected to nowhere")
                url = _joined(address.url, location)
            raise RemoteProtocolError(last_host, "redirected too many times")
        if scope.cancelled_caught:
            raise Unreachable(last_host, "did not answer in time")

    @asynccontextmanager
    async def _ask(self, address: WebAddress, accept: str) -> AsyncIterator[Response]:
        target = Target(address.host, address.port)
        pool = Connections(self._dialler, lambda: [target], most=1)
        url = httpcore2.URL(
            scheme=address.scheme, host=address.host, port=address.port, target=address.target
        )
        headers = [
            ("Host", address.host_header),
            ("User-Agent", USER_AGENT),
            ("Accept", accept),
            ("Accept-Encoding", "identity"),
        ]
        try:
            async with http.exchange(pool, "GET", url, headers, None) as response:
                yield response
        except http.BadResponse as error:
            raise RemoteProtocolError(address.host, str(error)) from error
        except http.HttpFailure as error:
            raise Unreachable(address.host, str(error)) from error
        finally:
            with trio.CancelScope(shield=True):  # sends nothing and waits for nobody
                await pool.aclose()

    @asynccontextmanager
    async def _success(self, address: WebAddress, response: Response) -> AsyncIterator[IncomingBody]:
        if response.status != 200:
            raise RemoteRefused(address.host, response.status, {})
        headers = http.headers_of(response)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise RemoteProtocolError(address.host, "answered in an encoding that was not asked for")
        async with aclosing(http.chunks(response, MAX_BODY)) as body:
            yield IncomingBody(headers, address.url, body)


def _joined(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError:
        return ""
