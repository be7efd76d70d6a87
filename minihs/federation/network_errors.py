# SPDX-License-Identifier: Apache-2.0
"""Finding the reason in a chain of exceptions that libraries have wrapped around each other."""

from __future__ import annotations

import ssl


def text_of(error: BaseException) -> str:
    """One line saying what went wrong: the innermost cause that says anything (httpcore2's TLS errors are
    empty)."""
    best = ""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, ssl.SSLCertVerificationError):
            return f"certificate refused: {current.verify_message}"
        text = str(current) if not isinstance(current, OSError) else (current.strerror or str(current))
        best = text or best
        current = current.__cause__ or current.__context__
    return best or type(error).__name__
