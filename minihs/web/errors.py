# SPDX-License-Identifier: Apache-2.0
"""What an exception becomes on the wire (client-server-api, "Standard error response").

A `MatrixError` is its own answer, also from within exception groups. Anything else is our bug: the client
gets a 500 with an id, the log gets the traceback under the same id.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from minihs.matrix.errors import MatrixError
from minihs.runtime import Randomness
from minihs.web.routing import Answer

log = structlog.get_logger(__name__)


def error_answer(error: Exception, random: Randomness) -> Answer:
    refusal = refusal_in(error)
    if refusal is None:
        error_id = random.token_urlsafe(9)
        log.error("a request failed", error_id=error_id, exc_info=error)
        refusal = MatrixError(500, "M_UNKNOWN", f"Internal server error; the log has it as {error_id}.")
    headers = {}
    retry_after_ms = refusal.extra.get("retry_after_ms")
    if refusal.status == 429 and isinstance(retry_after_ms, int):
        headers["Retry-After"] = str(max(1, -(-retry_after_ms // 1000)))
    return Answer(refusal.status, json=refusal.to_json(), headers=headers)


def refusal_in(error: Exception) -> MatrixError | None:
    """The refusal that the error, or every one of a group of errors, stands for; None if any is a bug."""
    first: MatrixError | None = None
    for leaf in leaves(error):
        if not isinstance(leaf, MatrixError):
            return None
        first = first or leaf
    return first


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
