# SPDX-License-Identifier: Apache-2.0
"""How asking another server can fail. The type says whose fault it is and so what the caller should do.

They live here, below everything, because those who ask (rooms, users, e2ee) and those who carry the question
(federation) do not know each other.
"""

from __future__ import annotations

from typing import Any

from minihs.matrix.signatures import SignatureError


class FederationError(Exception):
    """Base class: the other server did not give us what we asked for. `str()` is safe to show to a user."""

    def __init__(self, destination: str, message: str) -> None:
        super().__init__(f"{destination}: {message}")
        self.destination = destination
        self.message = message


class Unreachable(FederationError):
    """No answer: name not found, connection refused, wrong certificate, time-out. Transient: try later or
    elsewhere."""


class RemoteRefused(FederationError):
    """The server answered with an error status.

    What it means depends on the request: look at `status` and `errcode`. The body is as it came, unchecked,
    but always a dict.
    """

    def __init__(self, destination: str, status: int, body: dict[str, Any]) -> None:
        errcode = body.get("errcode")
        error = body.get("error")
        self.status = status
        self.errcode: str = errcode[:255] if isinstance(errcode, str) else "M_UNKNOWN"
        self.error: str = error[:1000] if isinstance(error, str) else ""
        self.body = body
        super().__init__(destination, f"answered {status} {self.errcode} {self.error}".rstrip())

    @property
    def is_unrecognized(self) -> bool:
        """The server does not know the endpoint, as far as one can tell; older servers lack the errcode."""
        return self.errcode == "M_UNRECOGNIZED" or (
            self.status in (404, 405)
            and self.errcode in ("M_UNKNOWN", "M_NOT_FOUND")
            and "errcode" not in self.body
        )


class RemoteProtocolError(FederationError):
    """The server answered, and the answer is against the protocol: not JSON, wrong types, too large."""


class KeyUnavailable(SignatureError):
    """A signature could not be checked, because the key is not to be had now. It may be later: defer, don't
    reject."""
