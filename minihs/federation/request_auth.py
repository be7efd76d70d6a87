# SPDX-License-Identifier: Apache-2.0
"""Who is calling: checking the X-Matrix signature of a request (spec: server-server-api, "Request
Authentication").

What is verified is what came: the method, the path and query as they were on the wire, and the body as it was
parsed, once. Everything that is wrong with a signature is 401 M_UNAUTHORIZED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from minihs.federation import x_matrix
from minihs.federation.keyring import Keyring
from minihs.federation.x_matrix import XMatrix
from minihs.matrix import canonical, unpadded
from minihs.matrix.errors import unauthorized
from minihs.matrix.ids import is_server_name
from minihs.matrix.signatures import SignatureError

MAX_SIGNATURES = 5
"""Authorization headers looked at."""


class Headers(Protocol):
    """Headers that may repeat, as werkzeug has them."""

    def getlist(self, key: str, /) -> Iterable[str]: ...


class RequestAuth:
    def __init__(
        self, our_name: str, keyring: Keyring, heard_from: Callable[[str], None] = lambda server: None
    ) -> None:
        self._our_name = our_name
        self._keyring = keyring
        self._heard_from = heard_from

    async def authenticate(
        self, method: str, raw_uri: str, headers: Headers, content: Any, *, floats: bool | None = None
    ) -> str:
        """The server that signed the request. `content` is the parsed body, None if there is none; `floats`:
        whether there may be any in it, if that is known.

        Raises MatrixError. A server that is heard from is up, whatever we thought of it.
        """
        signatures = self._parse(
            [text for text in headers.getlist("Authorization") if x_matrix.is_x_matrix(text)]
        )
        origin = signatures[0].origin
        try:
            message = x_matrix.signed_bytes(
                method=method,
                uri=raw_uri,
                origin=origin,
                destination=self._our_name,  # which old servers sign as well, though they don't say it
                content=None if content is None else canonical.encode(content, floats=floats),
            )
            await self._keyring.verify_request(
                origin, message, [(each.key_id, unpadded.decode(each.signature)) for each in signatures]
            )
        except (SignatureError, ValueError) as error:
            raise unauthorized(f"The signature of the request does not hold: {error}") from error
        self._heard_from(origin)
        return origin

    def _parse(self, headers: list[str]) -> list[XMatrix]:
        if not headers:
            raise unauthorized("The request is not signed.")
        if len(headers) > MAX_SIGNATURES:
            raise unauthorized("The request has too many signatures.")
        try:
            signatures = [x_matrix.parse(header) for header in headers]
        except x_matrix.BadHeader as error:
            raise unauthorized(f"Bad signature: {error}.") from error
        if len({(each.origin, each.destination) for each in signatures}) > 1:
            raise unauthorized("The signatures of the request are of different servers.")
        origin, destination = signatures[0].origin, signatures[0].destination
        if not is_server_name(origin):
            raise unauthorized("The origin of the request is not a server name.")
        if origin == self._our_name:
            raise unauthorized("The request claims to come from this server itself.")
        if destination is not None and destination != self._our_name:
            raise unauthorized("The request is signed for another server.")
        return signatures
