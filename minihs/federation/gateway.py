# SPDX-License-Identifier: Apache-2.0
"""POST to push gateways (spec: push-gateway-api).

The address comes from a user's client. It is dialled as any other: private networks only if the configuration
allows them. Without TLS nothing is sent but to such a network, where a gateway of one's own may stand.
"""

from __future__ import annotations

import httpcore2
import trio

from minihs.federation import http
from minihs.federation.connections import Connections
from minihs.federation.dial import Dialler, Target
from minihs.federation.web import parse_url
from minihs.matrix import canonical
from minihs.matrix.canonical import JsonObject
from minihs.matrix.federation_errors import RemoteProtocolError, RemoteRefused, Unreachable

TIMEOUT = 30.0
MAX_ANSWER = 64 * 1024


class PushGateways:
    def __init__(self, dialler: Dialler, private_dialler: Dialler) -> None:
        """`private_dialler` reaches only networks that the configuration allows."""
        self._dialler = dialler
        self._private_dialler = private_dialler

    async def notify(self, url: str, body: JsonObject) -> JsonObject:
        """The answer to a notification. Raises FederationError."""
        address = parse_url(url)
        if address is None:
            raise RemoteProtocolError("", "the address of the gateway is not one that is asked for")
        dialler = self._dialler if address.scheme == "https" else self._private_dialler
        content = canonical.dumps(body)
        target = Target(address.host, address.port)
        pool = Connections(dialler, lambda: [target], most=1)
        headers = [
            ("Host", address.host_header),
            ("User-Agent", "minihs"),
            ("Accept", "application/json"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
        ]
        location = httpcore2.URL(
            scheme=address.scheme, host=address.host, port=address.port, target=address.target
        )
        with trio.move_on_after(TIMEOUT):
            try:
                async with http.exchange(pool, "POST", location, headers, content) as response:
                    answer = await http.read_body(response, MAX_ANSWER)
                return _answer(address.host, response.status, answer)
            except http.BadResponse as error:
                raise RemoteProtocolError(address.host, str(error)) from error
            except http.HttpFailure as error:
                raise Unreachable(address.host, str(error)) from error
            finally:
                with trio.CancelScope(shield=True):  # sends nothing and waits for nobody
                    await pool.aclose()
        raise Unreachable(address.host, "did not answer in time")


def _answer(host: str, status: int, body: bytes) -> JsonObject:
    if status != 200:
        raise RemoteRefused(host, status, {})
    try:
        answer = canonical.loads(body)
    except ValueError as error:
        raise RemoteProtocolError(host, f"answered with bad JSON: {error}") from error
    if not isinstance(answer, dict):
        raise RemoteProtocolError(host, "answered with something else than a JSON object")
    return answer
