# SPDX-License-Identifier: Apache-2.0
"""Finding out who asks: access tokens of clients (client-server-api, "Client Authentication").

The signatures of other servers are checked in `federation/request_auth.py`.
"""

from __future__ import annotations

from typing import Protocol

from minihs.matrix.errors import MatrixError
from minihs.requester import Requester

__all__ = ["Requester", "TokenHolder", "access_token", "authenticate"]


class TokenHolder(Protocol):
    """What knows the access tokens (`users`)."""

    def requester_for_token(self, token: str, remote_address: str | None = None) -> Requester | None:
        """None: unknown. The address is remembered as where the device was last seen."""
        ...


def access_token(authorization: str | None, query_token: str | None) -> str | None:
    """The token of a request: of the header, or of the deprecated query parameter if there is no header."""
    if authorization is None:
        return query_token
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else query_token


def authenticate(users: TokenHolder, token: str | None, remote_address: str) -> Requester:
    if not token:
        raise MatrixError(401, "M_MISSING_TOKEN", "Missing access token.")
    requester = users.requester_for_token(token, remote_address)
    if requester is None:
        raise MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown access token.", soft_logout=False)
    return requester
