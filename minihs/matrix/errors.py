# SPDX-License-Identifier: Apache-2.0
"""Errors that have a form on the wire.

`MatrixError` is what the edge turns into a response: a status, an errcode and a text that is safe to show to
anybody (spec: client-server-api, "Standard error response"). What only the log may see goes into the chained
exception (`raise ... from cause`).
"""

from __future__ import annotations

from typing import Any


class MatrixError(Exception):
    """A refusal with its errcode. Let it propagate; the edge answers with it."""

    def __init__(self, status: int, errcode: str, message: str, **extra: Any) -> None:
        super().__init__(f"{errcode}: {message}")
        self.status = status
        self.errcode = errcode
        self.message = message
        self.extra = extra
        """More fields of the JSON answer, such as `retry_after_ms` or `room_version`."""

    def to_json(self) -> dict[str, Any]:
        return {"errcode": self.errcode, "error": self.message, **self.extra}


def bad_json(message: str) -> MatrixError:
    return MatrixError(400, "M_BAD_JSON", message)


def not_json(message: str = "The body is not valid JSON.") -> MatrixError:
    return MatrixError(400, "M_NOT_JSON", message)


def invalid_param(message: str) -> MatrixError:
    return MatrixError(400, "M_INVALID_PARAM", message)


def missing_param(message: str) -> MatrixError:
    return MatrixError(400, "M_MISSING_PARAM", message)


def forbidden(message: str) -> MatrixError:
    return MatrixError(403, "M_FORBIDDEN", message)


def not_found(message: str) -> MatrixError:
    return MatrixError(404, "M_NOT_FOUND", message)


def unrecognized(status: int = 404) -> MatrixError:
    return MatrixError(status, "M_UNRECOGNIZED", "Unrecognized request.")


def too_large(message: str = "The request is too large.") -> MatrixError:
    return MatrixError(413, "M_TOO_LARGE", message)


def unauthorized(message: str) -> MatrixError:
    """A federation request that is not, or wrongly, signed."""
    return MatrixError(401, "M_UNAUTHORIZED", message)


def limit_exceeded(retry_after_ms: int, message: str = "Too many requests.") -> MatrixError:
    return MatrixError(429, "M_LIMIT_EXCEEDED", message, retry_after_ms=retry_after_ms)
