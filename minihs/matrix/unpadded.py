# SPDX-License-Identifier: Apache-2.0
"""Unpadded Base64, the form in which Matrix writes bytes into JSON (spec: appendices, "Unpadded Base64")."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URLSAFE = str.maketrans("-_", "+/")
_MAX_PADDING = 2


def encode(data: bytes) -> str:
    """Standard alphabet, no padding."""
    return b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_urlsafe(data: bytes) -> str:
    """The URL-safe alphabet (`-` and `_`), no padding: event ids of room version 4 and later."""
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URLSAFE).decode("ascii")


def decode(text: str) -> bytes:
    """The bytes behind `text`, in either alphabet, padded or not. ValueError for anything else.

    The specification asks receivers to accept both forms of padding. Characters outside the alphabets are
    refused rather than skipped, since skipping them would give one value many spellings.
    """
    bare = text.rstrip("=")
    if len(text) - len(bare) > _MAX_PADDING:
        raise ValueError("too much base64 padding")
    if "-" in bare or "_" in bare:
        bare = bare.translate(_FROM_URLSAFE)
    return a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
