# SPDX-License-Identifier: Apache-2.0
"""Finding the reason in a chain of exceptions that libraries have wrapped around each other."""

from __future__ import annotations

import ssl


def text_of(error: BaseException) -> str:
    """One line saying what went wrong: the first text along the causes (libraries' wrappers are often empty).

    For a refused certificate it is the reason of the refusal.
    """
    text = ""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, ssl.SSLCertVerificationError):
            return f"certificate refused: {current.verify_message}"
        if not text:
            text = (current.strerror if isinstance(current, OSError) else None) or str(current)
        current = current.__cause__ or current.__context__
    return text or type(error).__name__
